"""Files that are refused, each with its reason; and files that only seem damaged, which are not."""

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from schemas import FailureReason
from tests.unit.images.made_images import (
    GREY,
    HEIGHT,
    RGB,
    WIDTH,
    actl,
    avif,
    behind_start,
    chunk,
    cut,
    encoded,
    fctl,
    gif,
    gif_image,
    grey_samples,
    heic,
    jpeg,
    jxl,
    lzw,
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
)
from tests.unit.images.shown_images import COMPLETE
from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat

MAX_PIXELS = 100_000
TRUNCATED = FailureReason.TRUNCATED_IMAGE
DAMAGED = FailureReason.UNDECODABLE_IMAGE
LARGE = FailureReason.IMAGE_TOO_LARGE
UNSUPPORTED = FailureReason.UNSUPPORTED_FORMAT
END = b"\xff\xd9"


def jpeg_of_noise(**options: object) -> bytes:
    return jpeg(noise(96, 64), **options)


def without_last_scans() -> bytes:
    data = jpeg_of_noise(progressive=True)
    return data[: data.rindex(b"\xff\xda")] + END


def without_a_restart() -> bytes:
    data = jpeg_of_noise(restart_marker_blocks=6)
    start, stop = data.index(b"\xff\xd2"), data.index(b"\xff\xd4")
    return data[:start] + data[stop:]


def bad_checksum(data: bytes, name: bytes) -> bytes:
    at = data.index(name)
    end = at + 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :]


def png_of_too_few_rows(samples: np.ndarray, depth: int, colour: int, *, interlaced: bool = False) -> bytes:
    import zlib

    rows = scanlines(samples, depth, interlaced)
    return png(samples, depth, colour, interlaced=interlaced, data=zlib.compress(rows[: len(rows) // 2]))


REFUSED: dict[str, tuple[Callable[[], bytes], FailureReason]] = {
    "jpeg half": (lambda: cut(jpeg_of_noise(), 0.5), TRUNCATED),
    "jpeg half with an end": (lambda: cut(jpeg_of_noise(), 0.5, END), TRUNCATED),
    "jpeg nearly whole with an end": (lambda: cut(jpeg_of_noise(), 0.97, END), TRUNCATED),
    "jpeg progressive half with an end": (lambda: cut(jpeg_of_noise(progressive=True), 0.5, END), TRUNCATED),
    "jpeg progressive without its last scan": (without_last_scans, TRUNCATED),
    "jpeg cmyk half with an end": (lambda: cut(jpeg(noise().convert("CMYK")), 0.6, END), TRUNCATED),
    "jpeg grey half with an end": (lambda: cut(jpeg(noise().convert("L")), 0.6, END), TRUNCATED),
    "jpeg without a restart interval": (without_a_restart, TRUNCATED),
    "jpeg without a picture": (lambda: b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(9) + END, DAMAGED),
    "jpeg of too many segments": (lambda: behind_start(jpeg(), segment(0xE5, b"") * 20_000), LARGE),
    "png half": (lambda: cut(rgb_png(), 0.5), TRUNCATED),
    "png half with an end": (lambda: cut(rgb_png(), 0.5, chunk(b"IEND")), TRUNCATED),
    "png of too few rows": (lambda: png_of_too_few_rows(rgb_samples(), 8, RGB), TRUNCATED),
    "png of too few grey rows": (lambda: png_of_too_few_rows(grey_samples(16), 16, GREY), TRUNCATED),
    "png of too few rows of bits": (lambda: png_of_too_few_rows(grey_samples(1), 1, GREY), TRUNCATED),
    "png of too few interlaced rows": (lambda: png_of_too_few_rows(rgb_samples(), 8, RGB, interlaced=True), TRUNCATED),
    "png of no data": (lambda: png(rgb_samples(), 8, RGB, data=b""), TRUNCATED),
    "png wrong checksum of IDAT": (lambda: bad_checksum(rgb_png(), b"IDAT"), DAMAGED),
    "png wrong checksum of IHDR": (lambda: bad_checksum(rgb_png(), b"IHDR"), DAMAGED),
    "png header alone": (lambda: rgb_png()[:20], TRUNCATED),
    "apng control without frames": (lambda: rgb_png(actl(3)), TRUNCATED),
    "apng frame outside": (lambda: rgb_png(actl(1), fctl(0, WIDTH + 1, HEIGHT)), DAMAGED),
    "webp half": (lambda: cut(encoded(noise(), "WEBP"), 0.5), TRUNCATED),
    "webp without a picture": (lambda: riff((b"EXIF", bytes(20))), TRUNCATED),
    "webp of noise": (lambda: riff((b"VP8L", b"\x2f\x2f\xc0\x07\x00" + bytes(range(200)))), DAMAGED),
    "gif half": (lambda: cut(gif(gif_image(WIDTH, HEIGHT)), 0.9), TRUNCATED),
    "gif of too few pixels": (lambda: gif(gif_image(WIDTH, HEIGHT, cut_at=700)), TRUNCATED),
    "gif of one row too few": (lambda: gif(gif_image(WIDTH, HEIGHT, cut_at=WIDTH * (HEIGHT - 1))), TRUNCATED),
    "gif interlaced of too few pixels": (
        lambda: gif(gif_image(WIDTH, HEIGHT, interlaced=True, cut_at=700)),
        TRUNCATED,
    ),
    "gif without a frame": (lambda: gif(), TRUNCATED),
    "gif header alone": (lambda: b"GIF89a\1\0", TRUNCATED),
    "avif half": (lambda: cut(avif(noise()), 0.5), TRUNCATED),
    "avif nearly whole": (lambda: avif(noise())[:-20], TRUNCATED),
    "heic half": (lambda: cut(heic(noise()), 0.5), TRUNCATED),
    "jxl half": (lambda: cut(jxl(noise()), 0.5), DAMAGED),
    "bmp half": (lambda: cut(encoded(noise(), "BMP"), 0.5), TRUNCATED),
    "tiff half": (lambda: cut(encoded(noise(), "TIFF"), 0.5), TRUNCATED),
    "tiff packed, half": (lambda: cut(encoded(noise(), "TIFF", compression="tiff_lzw"), 0.5), TRUNCATED),
    "tiff of floats": (lambda: encoded(Image.fromarray(scene()[:, :, 0] / np.float32(255)), "TIFF"), DAMAGED),
    "jpeg 2000 half": (lambda: cut(encoded(noise(), "JPEG2000"), 0.5), DAMAGED),
    "large jpeg": (lambda: jpeg(picture(400, 300)), LARGE),
    "large png": (lambda: encoded(picture(400, 300), "PNG"), LARGE),
    "large webp": (lambda: encoded(picture(400, 300), "WEBP"), LARGE),
    "large gif": (lambda: encoded(picture(400, 300), "GIF"), LARGE),
    "large avif": (lambda: avif(picture(400, 300)), LARGE),
    "large heic": (lambda: heic(picture(400, 300)), LARGE),
    "large jxl": (lambda: jxl(picture(400, 300)), LARGE),
    "large bmp": (lambda: encoded(picture(400, 300), "BMP"), LARGE),
    "large tiff": (lambda: encoded(picture(400, 300), "TIFF"), LARGE),
    "large jpeg 2000": (lambda: encoded(picture(400, 300), "JPEG2000"), LARGE),
}


def refusal(data: bytes, formats: tuple[ImageFormat, ...] = tuple(ImageFormat)) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=MAX_PIXELS, formats=formats)
    return caught.value


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_is_refused_for_its_reason(name: str) -> None:
    make, reason = REFUSED[name]
    error = refusal(make())
    assert error.reason is reason, str(error)
    assert len(str(error)) < 300


@pytest.mark.parametrize("name", COMPLETE)
def test_a_file_whose_pixels_are_all_there_is_decoded_whole(name: str) -> None:
    make, make_whole = COMPLETE[name]
    assert np.array_equal(decode(make(), max_pixels=MAX_PIXELS), decode(make_whole(), max_pixels=MAX_PIXELS))


MAKERS: dict[ImageFormat, Callable[[], bytes]] = {
    ImageFormat.JPEG: jpeg,
    ImageFormat.PNG: rgb_png,
    ImageFormat.WEBP: lambda: encoded(picture(), "WEBP", lossless=True),
    ImageFormat.GIF: lambda: encoded(picture(), "GIF"),
    ImageFormat.AVIF: avif,
    ImageFormat.BMP: lambda: encoded(picture(), "BMP"),
    ImageFormat.JXL: jxl,
    ImageFormat.HEIC: heic,
    ImageFormat.TIFF: lambda: encoded(picture(), "TIFF"),
    ImageFormat.JPEG2000: lambda: encoded(picture(), "JPEG2000"),
}


@pytest.mark.parametrize("image_format", ImageFormat)
def test_every_format_gives_the_picture_and_can_be_switched_off(image_format: ImageFormat) -> None:
    data = MAKERS[image_format]()
    pixels = decode(data, max_pixels=MAX_PIXELS, formats=(image_format,))
    assert np.abs(pixels.astype(int) - scene()).mean() < (12 if image_format is ImageFormat.GIF else 1)
    error = refusal(data, tuple(set(ImageFormat) - {image_format}))
    assert error.reason is UNSUPPORTED
    assert image_format.label in str(error)
    assert f"add {image_format.value} to images.formats" in str(error)


def test_formats_that_no_browser_shows_are_off_by_default() -> None:
    assert set(ImageFormat) - set(DEFAULT_FORMATS) == {ImageFormat.TIFF, ImageFormat.JPEG2000}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"8BPS\0\1" + bytes(20), "Photoshop"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "SVG"),
        (b"<?xml version='1.0'?>\n<!-- drawn -->\n<svg/>", "SVG"),
        (b"\0\0\1\0\1\0\x10\x10", "ICO"),
        (b"qoif" + bytes(10), "QOI"),
        (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", "Canon raw"),
    ],
)
def test_a_known_format_that_is_not_read_is_named(data: bytes, name: str) -> None:
    error = refusal(data)
    assert error.reason is UNSUPPORTED
    assert name in str(error)


def test_tiff_is_read_upright_and_of_its_first_page() -> None:
    turned = encoded(picture(), "TIFF", tiffinfo={274: 6}, save_all=True, append_images=[noise()])
    pixels = decode(turned, max_pixels=MAX_PIXELS, formats=(ImageFormat.TIFF,))
    assert np.array_equal(pixels, np.rot90(scene(), -1))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG2000"])
def test_alpha_of_what_no_browser_shows_is_composited_on_white(kind: str) -> None:
    pixels = decode(encoded(translucent(), kind), max_pixels=MAX_PIXELS, formats=tuple(ImageFormat))
    assert (pixels[0] == 255).all()
    assert np.array_equal(pixels[-1], scene()[-1])


def test_heic_is_read_upright_with_alpha_and_its_colours() -> None:
    clear = decode(heic(translucent()), max_pixels=MAX_PIXELS)
    assert (clear[0] >= 253).all()
    assert np.abs(clear[-1].astype(int) - scene()[-1]).mean() < 3
    wide = decode(with_codes(heic(), 12, 13), max_pixels=MAX_PIXELS)
    same = decode(with_codes(avif(), 12, 13), max_pixels=MAX_PIXELS)
    assert np.abs(wide.astype(int) - same).mean() < 2


def test_tags_of_a_tiff_that_all_name_the_same_bytes_are_a_bomb() -> None:
    import struct

    count = 400
    tags = b"".join(struct.pack("<HHII", 40_000 + n, 1, 100_000, 8) for n in range(count))
    data = b"II*\0" + struct.pack("<IH", 8, count) + tags + bytes(100_000)
    assert refusal(data).reason is LARGE


def test_a_gif_keeps_the_value_that_completeness_is_measured_with() -> None:
    """A last pixel of the very value that the picture is filled with beforehand is a pixel."""
    row = [0x5A] * WIDTH * HEIGHT
    frame = b"," + bytes([0, 0, 0, 0, WIDTH, 0, HEIGHT, 0, 0]) + lzw(row)
    assert decode(gif(frame), max_pixels=MAX_PIXELS).shape == (HEIGHT, WIDTH, 3)
    assert decode(png(np.full((4, 4, 1), 0x5A, np.uint16), 8, GREY), max_pixels=MAX_PIXELS)[3, 3, 0] == 0x5A
