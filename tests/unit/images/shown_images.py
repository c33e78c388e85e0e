"""The table of files that a browser shows: name → its maker. The test in tests/browser compares us with Chromium."""

import zlib
from collections.abc import Callable

import numpy as np

from tests.unit.images.made_images import (
    ADOBE,
    GREY,
    GREY_ALPHA,
    HEIGHT,
    P3,
    PALETTE,
    RGB,
    RGB_ALPHA,
    SRGB,
    WIDTH,
    actl,
    apng_of_small_frames,
    apng_with_hidden_default,
    avif,
    behind_start,
    bmp,
    bmp_rows,
    chromaticities,
    chunk,
    codes,
    encoded,
    exif,
    fctl,
    fdat,
    gamma,
    gif,
    gif_image,
    gif_palette,
    grey_icc,
    grey_samples,
    icc,
    iccp,
    jpeg,
    jxl,
    noise,
    picture,
    png,
    rgb_png,
    rgb_samples,
    riff,
    scanlines,
    scene,
    segment,
    translucent,
    with_codes,
    without_segment,
    xmp,
)

Table = dict[str, Callable[[], bytes]]


def _jpegs() -> Table:
    table: Table = {}
    for mode, samplings in (("RGB", {"444": 0, "422": 1, "420": 2}), ("L", {"400": 0})):
        for sampling, number in samplings.items():
            for kind in ("baseline", "progressive"):
                table[f"jpeg {kind} {sampling}"] = lambda m=mode, n=number, k=kind: jpeg(
                    picture().convert(m), progressive=k == "progressive", subsampling=n
                )
    table |= {f"jpeg exif {n}": lambda n=n: jpeg(exif=exif(n)) for n in range(10)}
    table |= {
        "jpeg exif, little-endian": lambda: jpeg(exif=exif(6, "<")),
        "jpeg exif, as a LONG": lambda: jpeg(exif=exif(6, kind=4)),
        "jpeg exif, two blocks": lambda: behind_start(jpeg(), segment(0xE1, exif(1)), segment(0xE1, exif(6))),
        "jpeg exif, broken": lambda: jpeg(exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(64)),
        "jpeg stale xmp": lambda: jpeg(xmp=xmp(6)),
        "jpeg exif 1, stale xmp": lambda: jpeg(exif=exif(1), xmp=xmp(6)),
        "jpeg cmyk": lambda: jpeg(picture().convert("CMYK")),
        "jpeg cmyk without adobe's mark": lambda: without_segment(jpeg(picture().convert("CMYK")), 0xEE),
        "jpeg of rgb": lambda: jpeg(keep_rgb=True),
        "jpeg with restarts": lambda: jpeg(restart_marker_blocks=3),
        "jpeg optimised": lambda: jpeg(optimize=True),
        "jpeg 1 x 1": lambda: jpeg(picture(1, 1)),
        "jpeg 17 x 13": lambda: jpeg(picture(17, 13), subsampling=2),
        "jpeg progressive without end": lambda: jpeg(progressive=True)[:-2],
        "jpeg with stray bytes": lambda: jpeg()[:-2] + b"\x12\x34\x56\xff\xd9",
        "jpeg with an appendix": lambda: jpeg() + jpeg(noise()) + bytes(1000),
        "jpeg with fill bytes": lambda: behind_start(jpeg(), b"\xff" * 5000),
        "jpeg with a long comment": lambda: behind_start(jpeg(), segment(0xFE, b"\xff\xd9" * 30_000)),
        "jpeg display p3": lambda: jpeg(icc_profile=icc(P3, 2.2)),
        "jpeg adobe rgb": lambda: jpeg(icc_profile=icc(ADOBE, 2.2)),
        "jpeg srgb profile of gamma 2.2": lambda: jpeg(icc_profile=icc(SRGB, 2.2)),
        "jpeg linear profile": lambda: jpeg(icc_profile=icc(SRGB, 1.0)),
        "jpeg profile of 120 kB": lambda: jpeg(icc_profile=icc(P3, 2.2, 120_000)),
        "jpeg grey with a grey profile": lambda: jpeg(picture().convert("L"), icc_profile=grey_icc(1.0)),
        "jpeg grey with an rgb profile": lambda: jpeg(picture().convert("L"), icc_profile=icc(P3, 1.0)),
        "jpeg rgb with a grey profile": lambda: jpeg(icc_profile=grey_icc(1.0)),
        "jpeg broken profile": lambda: jpeg(icc_profile=icc(P3, 2.2)[:300]),
    }
    return table


def _pngs() -> Table:
    palette = np.stack([np.arange(256), np.arange(256)[::-1], np.arange(256) // 2], -1).astype(np.uint8)
    alpha = np.asarray(translucent()).astype(np.uint16)
    table: Table = {}
    for interlaced in (False, True):
        also = " interlaced" if interlaced else ""
        for depth in (1, 2, 4, 8, 16):
            table[f"png grey {depth}{also}"] = lambda d=depth, i=interlaced: png(grey_samples(d), d, GREY, interlaced=i)
        for depth in (1, 2, 4, 8):
            table[f"png palette {depth}{also}"] = lambda d=depth, i=interlaced: png(
                grey_samples(d), d, PALETTE, chunk(b"PLTE", palette[: 1 << d].tobytes()), interlaced=i
            )
        for depth in (8, 16):
            factor = 257 if depth == 16 else 1
            table[f"png rgb {depth}{also}"] = lambda d=depth, i=interlaced, f=factor: png(
                rgb_samples() * f, d, RGB, interlaced=i
            )
            table[f"png rgba {depth}{also}"] = lambda d=depth, i=interlaced, f=factor: png(
                alpha * f, d, RGB_ALPHA, interlaced=i
            )
            table[f"png grey alpha {depth}{also}"] = lambda d=depth, i=interlaced, f=factor: png(
                alpha[:, :, [0, 3]] * f, d, GREY_ALPHA, interlaced=i
            )
    ramp = chunk(b"PLTE", palette.tobytes())
    bad = 0x12345678
    table |= {f"png exif {n}": lambda n=n: rgb_png(chunk(b"eXIf", exif(n)[6:])) for n in (1, 3, 5, 6, 8)}
    table |= {
        "png grey with a transparent value": lambda: png(grey_samples(8), 8, GREY, chunk(b"tRNS", b"\0\x80")),
        "png grey 16 with a transparent value": lambda: png(
            grey_samples(16), 16, GREY, chunk(b"tRNS", int(grey_samples(16)[0, 9, 0]).to_bytes(2, "big"))
        ),
        "png rgb with a transparent colour": lambda: png(
            rgb_samples(), 8, RGB, chunk(b"tRNS", rgb_samples()[3, 3].astype(">u2").tobytes())
        ),
        "png palette with alphas": lambda: png(
            grey_samples(8), 8, PALETTE, ramp, chunk(b"tRNS", bytes(range(0, 256, 2)))
        ),
        "png exif behind the data": lambda: rgb_png(after=chunk(b"eXIf", exif(6)[6:])),
        "png exif with jpeg's mark": lambda: rgb_png(chunk(b"eXIf", exif(6))),
        "png stale xmp": lambda: rgb_png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(6))),
        "png exif in a text": lambda: rgb_png(
            chunk(b"tEXt", b"Raw profile type exif\0\nexif\n      32\n" + exif(6).hex().encode() + b"\n")
        ),
        "png packed text of 2 MB": lambda: rgb_png(chunk(b"zTXt", b"workflow\0\0" + zlib.compress(bytes(2_000_000)))),
        "png packed itxt of 2 MB": lambda: rgb_png(
            chunk(b"iTXt", b"prompt\0\1\0\0\0" + zlib.compress(b"x" * 2_000_000))
        ),
        "png profile of 1.5 MB": lambda: rgb_png(chunk(b"iCCP", iccp(icc(P3, 2.2).ljust(1_500_000, b"\0")))),
        "png display p3": lambda: rgb_png(chunk(b"iCCP", iccp(icc(P3, 2.2)))),
        "png adobe rgb with alpha": lambda: png(alpha, 8, RGB_ALPHA, chunk(b"iCCP", iccp(icc(ADOBE, 2.2)))),
        "png palette adobe rgb": lambda: png(grey_samples(8), 8, PALETTE, chunk(b"iCCP", iccp(icc(ADOBE, 2.2))), ramp),
        "png grey profile": lambda: png(grey_samples(8), 8, GREY, chunk(b"iCCP", iccp(grey_icc(1.0)))),
        "png wrong checksum of iCCP": lambda: rgb_png(chunk(b"iCCP", iccp(icc(P3, 2.2)), bad)),
        "png wrong checksum of pHYs": lambda: rgb_png(chunk(b"pHYs", bytes(9), bad)),
        "png wrong checksum of tEXt": lambda: rgb_png(chunk(b"tEXt", b"a\0b", bad)),
        "png wrong checksum of caBX": lambda: rgb_png(chunk(b"caBX", bytes(100), bad)),
        "png wrong checksum of gAMA": lambda: rgb_png(chunk(b"gAMA", (100_000).to_bytes(4, "big"), bad)),
        "png wrong checksum of eXIf": lambda: rgb_png(chunk(b"eXIf", exif(6)[6:], bad)),
        "png damaged profile": lambda: rgb_png(chunk(b"iCCP", b"made\0\0" + bytes(40))),
        "png gamma 1/2.2": lambda: rgb_png(gamma(0.45455)),
        "png gamma 1": lambda: rgb_png(gamma(1.0)),
        "png gamma 0.3": lambda: rgb_png(gamma(0.3)),
        "png gamma and chromaticities": lambda: rgb_png(gamma(0.45455), chromaticities(P3)),
        "png gamma and srgb": lambda: rgb_png(gamma(1.0), chunk(b"sRGB", b"\0")),
        "png chromaticities alone": lambda: rgb_png(chromaticities(P3)),
        "png grey gamma 1": lambda: png(grey_samples(8), 8, GREY, gamma(1.0)),
        "png cicp display p3": lambda: rgb_png(codes(12, 13)),
        "png cicp before iccp": lambda: rgb_png(codes(12, 13), chunk(b"iCCP", iccp(icc(SRGB, 1.0)))),
        "png cicp bt.709": lambda: rgb_png(codes(1, 1)),
        "png cicp pq": lambda: rgb_png(codes(9, 16)),
        "png cicp hlg": lambda: rgb_png(codes(9, 18)),
        "png cicp unknown": lambda: rgb_png(codes(77, 99)),
        "png background": lambda: png(alpha, 8, RGB_ALPHA, chunk(b"bKGD", bytes(6))),
        "png with an appendix": lambda: rgb_png() + bytes(5000),
        "png without end": lambda: rgb_png()[:-12],
        "png without the last checksum": lambda: rgb_png()[:-16],
        "png text cut": lambda: rgb_png(after=chunk(b"tEXt", b"a\0" + b"b" * 500))[:-100],
        "png empty data chunks": lambda: png(rgb_samples(), 8, RGB, chunk(b"IDAT") * 5),
        "png data in many pieces": _png_in_pieces,
        "apng of the default image": lambda: encoded(
            picture(), "PNG", save_all=True, append_images=[noise(), picture().rotate(180)]
        ),
        "apng with a hidden default image": apng_with_hidden_default,
        "apng of small frames": apng_of_small_frames,
        "apng of no frames": lambda: rgb_png(actl(0)),
        "apng control behind the data": lambda: rgb_png(
            after=actl(1) + fctl(0, WIDTH, HEIGHT) + fdat(1, rgb_samples()[::-1])
        ),
        "apng frame with alpha over nothing": lambda: png(
            alpha, 8, RGB_ALPHA, actl(1), after=fctl(0, WIDTH, HEIGHT, blend=1) + fdat(1, alpha[::-1])
        ),
    }
    return table


def _png_in_pieces() -> bytes:
    packed = zlib.compress(scanlines(rgb_samples(), 8))
    pieces = [chunk(b"IDAT", packed[at : at + 7]) for at in range(7, len(packed), 7)]
    return png(rgb_samples(), 8, RGB, after=b"".join(pieces), data=packed[:7])


def _webps() -> Table:
    def payload(data: bytes, name: bytes) -> bytes:
        at = data.index(name)
        return data[at + 8 : at + 8 + int.from_bytes(data[at + 4 : at + 8], "little")]

    def extended(flags: int) -> bytes:
        return bytes([flags, 0, 0, 0]) + (WIDTH - 1).to_bytes(3, "little") + (HEIGHT - 1).to_bytes(3, "little")

    def moving(left: int, top: int) -> bytes:
        small = payload(encoded(picture(20, 16), "WEBP", lossless=True), b"VP8L")
        place = b"".join(v.to_bytes(3, "little") for v in (left // 2, top // 2, 19, 15, 100)) + b"\0"
        frame = place + b"VP8L" + len(small).to_bytes(4, "little") + small + bytes(len(small) % 2)
        return riff((b"VP8X", extended(0x12)), (b"ANIM", b"\xff\0\xff\xff\0\0"), (b"ANMF", frame), (b"ANMF", frame))

    lossless = encoded(picture(), "WEBP", lossless=True)
    return {
        "webp lossy": lambda: encoded(picture(), "WEBP", quality=95),
        "webp lossless": lambda: lossless,
        "webp grey": lambda: encoded(picture().convert("L"), "WEBP", lossless=True),
        "webp lossless alpha": lambda: encoded(translucent(), "WEBP", lossless=True, exact=True),
        "webp lossy alpha": lambda: encoded(translucent(), "WEBP", quality=95),
        "webp exif": lambda: encoded(picture(), "WEBP", lossless=True, exif=exif(6)),
        "webp stale xmp": lambda: encoded(picture(), "WEBP", lossless=True, xmp=xmp(6)),
        "webp display p3": lambda: encoded(picture(), "WEBP", lossless=True, icc_profile=icc(P3, 2.2)),
        "webp with an appendix": lambda: lossless + bytes(500),
        "webp 1 x 1": lambda: encoded(picture(1, 1), "WEBP", lossless=True),
        "webp animation": lambda: encoded(picture(), "WEBP", lossless=True, save_all=True, append_images=[noise()]),
        "webp animation of small frames": lambda: moving(8, 6),
    }


def _gifs() -> Table:
    whole = gif_image(WIDTH, HEIGHT)
    other = bytes(reversed(gif_palette()))
    return {
        "gif": lambda: gif(whole),
        "gif 87a": lambda: gif(whole, version=b"87a"),
        "gif interlaced": lambda: gif(gif_image(WIDTH, HEIGHT, interlaced=True)),
        "gif transparent": lambda: gif(gif_image(WIDTH, HEIGHT, control=(0, 40))),
        "gif own palette": lambda: gif(gif_image(WIDTH, HEIGHT, local=other)),
        "gif frame smaller than its screen": lambda: gif(gif_image(20, 10, 9, 7)),
        "gif transparent frame smaller than its screen": lambda: gif(gif_image(20, 10, 9, 7, control=(0, 40))),
        "gif frame larger than its screen": lambda: gif(gif_image(WIDTH + 10, HEIGHT + 6)),
        "gif frame beyond its screen": lambda: gif(gif_image(20, 10, WIDTH - 10, HEIGHT - 4)),
        "gif frames that clear": lambda: gif(gif_image(20, 10, 9, 7, control=(2, None)), gif_image(8, 8)),
        "gif frames that restore": lambda: gif(gif_image(20, 10, 9, 7, control=(3, None)), gif_image(8, 8)),
        "gif without end": lambda: gif(whole, end=b""),
        "gif with an appendix": lambda: gif(whole) + bytes(500),
        "gif with a comment": lambda: gif(b"\x21\xfe\x05hello\0" + whole),
        "gif of pillow": lambda: encoded(picture(), "GIF"),
        "gif animation of pillow": lambda: encoded(picture(), "GIF", save_all=True, append_images=[noise()]),
        "gif 1 x 1": lambda: gif(gif_image(1, 1), width=1, height=1),
    }


def _avifs() -> Table:
    table: Table = {f"avif turned {n}": lambda n=n: avif(exif=exif(n)) for n in range(1, 9)}
    table |= {
        "avif": avif,
        "avif 4:2:0": lambda: avif(subsampling="4:2:0"),
        "avif grey": lambda: avif(picture().convert("L")),
        "avif alpha": lambda: avif(translucent()),
        "avif stale xmp": lambda: avif(xmp=xmp(6)),
        "avif display p3 profile": lambda: avif(icc_profile=icc(P3, 2.2)),
        "avif profile of 120 kB": lambda: avif(icc_profile=icc(P3, 2.2, 120_000)),
        "avif display p3": lambda: with_codes(avif(), 12, 13),
        "avif pq": lambda: with_codes(avif(), 9, 16),
        "avif hlg": lambda: with_codes(avif(), 9, 18),
        "avif odd": lambda: avif(picture(33, 21)),
        "avif sequence": lambda: avif(save_all=True, append_images=[noise()]),
    }
    return table


def _bmps() -> Table:
    rgb = scene()
    bgr = np.ascontiguousarray(rgb[:, :, ::-1])
    bgra = np.ascontiguousarray(np.asarray(translucent())[:, :, [2, 1, 0, 3]])
    wide = rgb.astype(np.uint16)
    packed = (wide[:, :, 0] >> 3 << 11) | (wide[:, :, 1] >> 2 << 5) | wide[:, :, 2] >> 3
    colours = gif_palette()
    palette = b"".join(bytes([colours[3 * n + 2], colours[3 * n + 1], colours[3 * n], 0]) for n in range(256))
    index = np.ascontiguousarray(rgb[:, :, 0])
    runs = b"".join(b"".join(bytes([1, value]) for value in row.tolist()) + b"\0\0" for row in index[::-1]) + b"\0\1"
    return {
        "bmp 24": lambda: bmp(24, bmp_rows(bgr)),
        "bmp 24 top-down": lambda: bmp(24, bmp_rows(bgr, flipped=True), flipped=True),
        "bmp 32 without alpha": lambda: bmp(32, bmp_rows(bgra)),
        "bmp 32 with alpha": lambda: bmp(32, bmp_rows(bgra), masks=(0xFF0000, 0xFF00, 0xFF, 0xFF000000), compression=3),
        "bmp 16 of 565": lambda: bmp(16, bmp_rows(packed), masks=(0xF800, 0x07E0, 0x001F, 0), compression=3),
        "bmp palette": lambda: bmp(8, bmp_rows(index), palette=palette),
        "bmp palette of runs": lambda: bmp(8, runs, palette=palette, compression=1),
        "bmp of pillow": lambda: encoded(picture(), "BMP"),
        "bmp of bits": lambda: encoded(picture().convert("1"), "BMP"),
        "bmp with an appendix": lambda: bmp(24, bmp_rows(bgr)) + bytes(100),
    }


def _jxls() -> Table:
    return {
        "jxl": jxl,
        "jxl lossy": lambda: jxl(lossless=False, distance=0.5),
        "jxl grey": lambda: jxl(picture().convert("L")),
        "jxl alpha": lambda: jxl(translucent()),
        "jxl exif": lambda: jxl(exif=exif(6)[6:]),
        "jxl display p3": lambda: jxl(icc=icc(P3, 2.2)),
        "jxl odd": lambda: jxl(picture(33, 21)),
    }


COMPLETE: dict[str, tuple[Callable[[], bytes], Callable[[], bytes]]] = {
    "jpeg without end": (lambda: jpeg()[:-2], jpeg),
    "jpeg without last byte": (lambda: jpeg()[:-1], jpeg),
    "jpeg progressive without end": (lambda: jpeg(progressive=True)[:-2], lambda: jpeg(progressive=True)),
    "jpeg cmyk without end": (lambda: jpeg(picture().convert("CMYK"))[:-2], lambda: jpeg(picture().convert("CMYK"))),
    "webp exif cut": (
        lambda: encoded(picture(), "WEBP", lossless=True, exif=exif(6))[:-9],
        lambda: encoded(picture(), "WEBP", lossless=True),
    ),
}
"""Files whose pixels are all there, of which Chromium shows less, and files that are whole: name → both makers."""

SHOWN: Table = _jpegs() | _pngs() | _webps() | _gifs() | _avifs() | _bmps() | _jxls()


def _moving() -> Table:
    def pillow(kind: str, **options: object) -> Callable[[], bytes]:
        rest = [picture().rotate(180), noise(), translucent().convert("RGB"), picture()]
        return lambda: encoded(picture(), kind, save_all=True, append_images=rest, duration=100, **options)

    red = np.zeros((10, 12, 3), np.uint16)
    red[:, :, 0] = 255
    alpha = np.asarray(translucent()).astype(np.uint16)
    ways = [(disposal, blend) for disposal in (0, 1, 2) for blend in (0, 1)]
    pieces = [fctl(1, 12, 10, 4, 3, disposal=disposal, blend=blend) + fdat(2, red) for disposal, blend in ways]
    over = fctl(1, WIDTH, HEIGHT, blend=1) + fdat(2, alpha[::-1])
    table: Table = {
        f"apng disposal {number // 2} blend {number % 2}": lambda piece=piece: png(
            rgb_samples(), 8, RGB, actl(3), fctl(0, WIDTH, HEIGHT), after=piece + fctl(3, 12, 10, 20, 12) + fdat(4, red)
        )
        for number, piece in enumerate(pieces)
    }
    table |= {
        f"gif disposal {disposal}": lambda disposal=disposal: gif(
            gif_image(WIDTH, HEIGHT),
            gif_image(20, 10, 9, 7, control=(disposal, 40)),
            gif_image(8, 8, 2, 2, control=(disposal, None)),
            gif_image(10, 6, 30, 20),
        )
        for disposal in range(4)
    }
    return table | {
        "gif first frame small": lambda: gif(gif_image(20, 10, 9, 7), gif_image(8, 8), gif_image(8, 8, 20, 20)),
        "gif frame beyond its screen later": lambda: gif(gif_image(WIDTH, HEIGHT), gif_image(20, 10, 40, 28)),
        "gif first restores": lambda: gif(gif_image(20, 10, 9, 7, control=(3, None)), gif_image(8, 8), gif_image(9, 9)),
        "gif of pillow": pillow("GIF"),
        "apng of pillow": pillow("PNG"),
        "webp of pillow": pillow("WEBP", lossless=True),
        "apng blended over": lambda: png(alpha, 8, RGB_ALPHA, actl(2), fctl(0, WIDTH, HEIGHT), after=over),
        "apng hidden default": apng_with_hidden_default,
        "apng small frames": apng_of_small_frames,
    }


MOVING: Table = _moving()
"""Animations whose every frame is compared."""
