"""Makes image files of every format with the oddities that real files have, small and without a fixture on disk."""

import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np
import pillow_heif
import pylibjxl
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 48, 32
PIXEL_FORMAT_565 = (0xF800, 0x07E0, 0x001F)


def scene(width: int = WIDTH, height: int = HEIGHT) -> Pixels:
    """Red grows to the right, green downwards, and blue is another in each quarter: any turn or mirror shows."""
    red = np.linspace(10, 245, width)[None, :].repeat(height, 0)
    green = np.linspace(20, 230, height)[:, None].repeat(width, 1)
    blue = np.full((height, width), 60.0)
    blue[: height // 2, width // 2 :] = 130
    blue[height // 2 :, : width // 2] = 190
    return np.rint(np.stack([red, green, blue], -1)).astype(np.uint8)


def picture(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(scene(width, height))


def translucent(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """The scene, ever more opaque downwards."""
    alpha = np.rint(np.linspace(0, 255, height))[:, None].repeat(width, 1).astype(np.uint8)
    return Image.fromarray(np.dstack([scene(width, height), alpha]))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = ">", kind: int = 3) -> bytes:
    """An Exif block of one tag: 274, as SHORT (3) or LONG (4)."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    value = struct.pack(f"{order}HH", orientation, 0) if kind == 3 else struct.pack(f"{order}I", orientation)
    return b"Exif\0\0" + mark + struct.pack(f"{order}IHHHI", 8, 1, 274, kind, 1) + value + bytes(4)


def xmp(orientation: int) -> bytes:
    return (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" '
        b'tiff:Orientation="%d"/></rdf:RDF></x:xmpmeta>' % orientation
    )


# Colour profiles

P3 = ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060))
ADOBE = ((0.64, 0.33), (0.21, 0.71), (0.15, 0.06))
SRGB = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))


def icc(primaries: Iterable[tuple[float, float]], gamma: float, padding: int = 0) -> bytes:
    """An RGB display profile (ICC.1) of three primaries with a D65 white and one gamma, of as many more bytes."""
    xyz = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    white, d50 = np.array([0.95047, 1, 1.08883]), np.array([0.9642, 1, 0.8249])
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford
    columns = adapt @ (xyz * np.linalg.solve(xyz, white))
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    tags = [(b"wtpt", _xyz(d50)), (b"cprt", b"text" + bytes(4) + b"none" + bytes(4))]
    tags += [(name, _xyz(columns[:, index])) for index, name in enumerate((b"rXYZ", b"gXYZ", b"bXYZ"))]
    tags += [(name, curve) for name in (b"rTRC", b"gTRC", b"bTRC")]
    tags.append((b"desc", b"desc" + bytes(4) + struct.pack(">I", 5) + b"made\0" + bytes(79)))
    if padding:
        noise = np.random.default_rng(8).integers(0, 256, padding // 4 * 4, dtype=np.uint8)
        tags.append((b"junk", noise.tobytes()))
    return _profile(b"RGB ", tags)


def grey_icc(gamma: float) -> bytes:
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    return _profile(b"GRAY", [(b"wtpt", _xyz((0.9642, 1, 0.8249))), (b"kTRC", curve)])


def _profile(space: bytes, tags: list[tuple[bytes, bytes]]) -> bytes:
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for name, content in tags:
        table += name + struct.pack(">II", start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    header = struct.pack(">I4sI4s4s4s", start + len(body), b"made", 0x02400000, b"mntr", space, b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">III", 0xF6D6, 0x10000, 0xD32D)
    return header.ljust(128, b"\0") + table + body


def _xyz(values: Iterable[float]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


# PNG

GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(name: bytes, content: bytes = b"", checksum: int | None = None) -> bytes:
    crc = zlib.crc32(name + content) if checksum is None else checksum
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def scanlines(samples: NDArray[np.uint16], depth: int, interlaced: bool = False) -> bytes:
    """Rows without a filter, of samples (H, W, channels)."""
    passes = _ADAM7 if interlaced else [(0, 0, 1, 1)]
    rows = []
    for left, top, across, down in passes:
        part = samples[top::down, left::across]
        if not part.size:
            continue
        for row in part.reshape(part.shape[0], -1):
            if depth == 16:
                content = row.astype(">u2").tobytes()
            elif depth == 8:
                content = row.astype(np.uint8).tobytes()
            else:
                bits = "".join(f"{value:0{depth}b}" for value in row)
                content = int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big")
            rows.append(b"\0" + content)
    return b"".join(rows)


def png(
    samples: NDArray[np.uint16],
    depth: int,
    colour: int,
    *before: bytes,
    interlaced: bool = False,
    after: bytes = b"",
    data: bytes | None = None,
) -> bytes:
    """A PNG by hand, of samples (H, W, channels); `before` and `after` are chunks around the data."""
    height, width = samples.shape[:2]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced)))
    packed = zlib.compress(scanlines(samples, depth, interlaced)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", packed) + after + chunk(b"IEND")


def rgb_samples() -> NDArray[np.uint16]:
    return scene().astype(np.uint16)


def grey_samples(depth: int) -> NDArray[np.uint16]:
    grey = scene()[:, :, :1].astype(np.uint16)
    return grey * 257 + 3 if depth == 16 else grey >> (8 - depth)


def rgb_png(*before: bytes, after: bytes = b"", interlaced: bool = False) -> bytes:
    return png(rgb_samples(), 8, RGB, *before, after=after, interlaced=interlaced)


def gamma(value: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(value * 100_000)))


def chromaticities(primaries: Iterable[tuple[float, float]]) -> bytes:
    values = [0.3127, 0.3290, *(value for point in primaries for value in point)]
    return chunk(b"cHRM", struct.pack(">8I", *(round(value * 100_000) for value in values)))


def codes(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, 0, 1]))


def iccp(profile: bytes) -> bytes:
    return b"made\0\0" + zlib.compress(profile)


def fctl(number: int, width: int, height: int, left: int = 0, top: int = 0, disposal: int = 0, blend: int = 0) -> bytes:
    return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, left, top, 1, 10, disposal, blend))


def fdat(number: int, samples: NDArray[np.uint16], depth: int = 8) -> bytes:
    return chunk(b"fdAT", struct.pack(">I", number) + zlib.compress(scanlines(samples, depth)))


def actl(frames: int) -> bytes:
    return chunk(b"acTL", struct.pack(">II", frames, 0))


def apng_with_hidden_default() -> bytes:
    """The default image, which only programs that know no APNG show, is black; the animation is the scene."""
    scene_rows = rgb_samples()
    black = np.zeros_like(scene_rows)
    frames = fctl(0, WIDTH, HEIGHT) + fdat(1, scene_rows) + fctl(2, WIDTH, HEIGHT) + fdat(3, scene_rows[::-1])
    return png(black, 8, RGB, actl(2), after=frames)


def apng_of_small_frames() -> bytes:
    black = np.zeros_like(rgb_samples())
    small = rgb_samples()[:16, :20]
    frames = fctl(0, 20, 16, 8, 6) + fdat(1, small) + fctl(2, 20, 16, 20, 10) + fdat(3, small)
    return png(black, 8, RGB, actl(2), after=frames)


# JPEG


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def behind_start(data: bytes, *segments: bytes) -> bytes:
    return data[:2] + b"".join(segments) + data[2:]


def jpeg(image: Image.Image | None = None, **options: object) -> bytes:
    return encoded(picture() if image is None else image, "JPEG", **({"quality": 92, "subsampling": 0} | options))


def without_segment(data: bytes, marker: int) -> bytes:
    at = data.index(bytes([0xFF, marker]))
    return data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]


def noise(width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8))


def cut(data: bytes, share: float, end: bytes = b"") -> bytes:
    return data[: int(len(data) * share)] + end


# GIF


def lzw(values: Iterable[int], bits: int = 8) -> bytes:
    """Packed without compression: a clear code before the dictionary grows to wider codes. With lengths of blocks."""
    width, clear = bits + 1, 1 << bits
    stream, taken, since = 0, 0, 1 << 30
    for value in values:
        if since >= (1 << bits) - 3:
            stream |= clear << taken
            taken += width
            since = 0
        stream |= value << taken
        taken += width
        since += 1
    stream |= (clear + 1) << taken
    content = stream.to_bytes((taken + width + 7) // 8, "little")
    blocks = b"".join(
        bytes([len(content[at : at + 255])]) + content[at : at + 255] for at in range(0, len(content), 255)
    )
    return bytes([bits]) + blocks + b"\0"


def gif_palette() -> bytes:
    """256 colours, all different, the first one magenta: what shows where a reader fills with a colour."""
    colours = np.stack([np.arange(256), np.arange(256)[::-1], (np.arange(256) * 7) % 256], -1).astype(np.uint8)
    colours[0] = (255, 0, 255)
    return colours.tobytes()


def gif_image(
    width: int,
    height: int,
    left: int = 0,
    top: int = 0,
    *,
    interlaced: bool = False,
    local: bytes = b"",
    control: tuple[int, int | None] | None = None,
    cut_at: int | None = None,
) -> bytes:
    """A frame of a diagonal ramp; `control` is its disposal and its transparent index."""
    values = (np.add.outer(np.arange(height) * 3, np.arange(width) * 2) % 256).astype(int)
    if interlaced:
        values = np.concatenate([values[0::8], values[4::8], values[2::4], values[1::2]])
    flags = (0x40 if interlaced else 0) | (0x87 if local else 0)
    block = b""
    if control is not None:
        disposal, transparent = control
        flag = disposal << 2 | (transparent is not None)
        block = b"\x21\xf9\x04" + bytes([flag, 10, 0, transparent or 0]) + b"\0"
    ordered = values.reshape(-1).tolist()
    return block + b"," + struct.pack("<HHHHB", left, top, width, height, flags) + local + lzw(ordered[:cut_at])


def gif(*frames: bytes, width: int = WIDTH, height: int = HEIGHT, version: bytes = b"89a", end: bytes = b";") -> bytes:
    screen = struct.pack("<HHBBB", width, height, 0xF7, 0, 0)
    return b"GIF" + version + screen + gif_palette() + b"".join(frames) + end


# WebP, AVIF and the rest


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(
        name + struct.pack("<I", len(content)) + content + bytes(len(content) % 2) for name, content in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body)) + body


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def avif(image: Image.Image | None = None, **options: object) -> bytes:
    chosen = {"quality": 95, "subsampling": "4:4:4", "speed": 10, "codec": "aom"} | options
    return encoded(picture() if image is None else image, "AVIF", **chosen)


def with_codes(data: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF or HEIC with other code points in its box `colr`."""
    at = data.index(b"nclx")
    return data[: at + 4] + struct.pack(">HH", primaries, transfer) + data[at + 8 :]


def heic(image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.from_pillow(picture() if image is None else image).save(buffer, quality=95, chroma=444, **options)
    return buffer.getvalue()


def jxl(image: Image.Image | None = None, **options: object) -> bytes:
    chosen = {"lossless": True, "effort": 3} | options
    return pylibjxl.encode(np.asarray(picture() if image is None else image), **chosen)


def bmp(
    bits: int,
    rows: bytes,
    *,
    masks: tuple[int, ...] = (),
    palette: bytes = b"",
    flipped: bool = False,
    compression: int = 0,
) -> bytes:
    height = -HEIGHT if flipped else HEIGHT
    size = 124 if masks else 40
    header = struct.pack(
        "<IiiHHIIiiII", size, WIDTH, height, 1, bits, compression, len(rows), 2835, 2835, len(palette) // 4, 0
    )
    if masks:
        header += struct.pack("<4I", *masks) + b"BGRs" + bytes(36) + bytes(12) + bytes(16)
    start = 14 + len(header) + len(palette)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


def bmp_rows(rows: NDArray[np.generic], flipped: bool = False) -> bytes:
    ordered = rows if flipped else rows[::-1]
    packed = [row.tobytes() for row in ordered]
    return b"".join(row + bytes(-len(row) % 4) for row in packed)
