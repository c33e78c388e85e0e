"""Every format and mode against fixed expectations, and every kind of broken file against its reason."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageDraw, features

from schemas import FailureReason
from worker.images.decode import decode
from worker.images.errors import ImageError

MAX_PIXELS = 1_000_000
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = {"red": RED, "green": GREEN, "blue": BLUE, "white": WHITE}


def quarters(width: int = 96, height: int = 64) -> Image.Image:
    """Red | green over blue | white: whichever way it is turned, the corners tell."""
    image = Image.new("RGB", (width, height), RED)
    draw = ImageDraw.Draw(image)
    draw.rectangle((width // 2, 0, width, height // 2 - 1), GREEN)
    draw.rectangle((0, height // 2, width // 2 - 1, height), BLUE)
    draw.rectangle((width // 2, height // 2, width, height), WHITE)
    return image


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(pixels: NDArray[np.uint8]) -> tuple[str, str, str, str]:
    """The names of the colours at top left, top right, bottom left and bottom right."""

    def name(pixel: NDArray[np.uint8]) -> str:
        return min(CORNERS, key=lambda colour: int(np.abs(pixel.astype(int) - CORNERS[colour]).sum()))

    return name(pixels[4, 4]), name(pixels[4, -5]), name(pixels[-5, 4]), name(pixels[-5, -5])


UPRIGHT = ("red", "green", "blue", "white")


def test_pixels_are_rgb_bytes_of_height_by_width() -> None:
    pixels = decode(encoded(quarters(96, 64), "PNG"), max_pixels=MAX_PIXELS)
    assert (pixels.shape, pixels.dtype) == ((64, 96, 3), np.uint8)
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("JPEG", {"quality": 95, "subsampling": 0}),
        ("JPEG", {"quality": 95, "keep_rgb": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("GIF", {}),
        pytest.param("AVIF", {"quality": 95}, marks=needs_avif),
    ],
)
def test_every_format_gives_the_picture(kind: str, options: dict[str, object]) -> None:
    pixels = decode(encoded(quarters(), kind, **options), max_pixels=MAX_PIXELS)
    assert pixels.shape == (64, 96, 3)
    assert corners(pixels) == UPRIGHT


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_gives_the_very_pixels_of_pillow(subsampling: int, progressive: bool, mode: str) -> None:
    noise = np.random.default_rng(7).integers(0, 256, (61, 83, 3), dtype=np.uint8)
    data = encoded(
        Image.fromarray(noise).convert(mode), "JPEG", quality=80, subsampling=subsampling, progressive=progressive
    )
    assert np.array_equal(decode(data, max_pixels=MAX_PIXELS), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize(
    ("orientation", "seen"),
    [
        (1, ("red", "green", "blue", "white")),
        (2, ("green", "red", "white", "blue")),
        (3, ("white", "blue", "green", "red")),
        (4, ("blue", "white", "red", "green")),
        (5, ("red", "blue", "green", "white")),
        (6, ("blue", "red", "white", "green")),
        (7, ("white", "green", "blue", "red")),
        (8, ("green", "white", "red", "blue")),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", pytest.param("AVIF", marks=needs_avif)])
def test_a_turned_photo_is_seen_upright(kind: str, orientation: int, seen: tuple[str, ...]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    pixels = decode(encoded(quarters(), kind, exif=exif.tobytes()), max_pixels=MAX_PIXELS)
    assert corners(pixels) == seen
    assert pixels.shape == ((96, 64, 3) if orientation >= 5 else (64, 96, 3))
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_changes_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    assert corners(decode(encoded(quarters(), "JPEG", exif=exif.tobytes()), max_pixels=MAX_PIXELS)) == UPRIGHT


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_break_the_picture() -> None:
    data = encoded(quarters(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(64)))
    assert corners(decode(data, max_pixels=MAX_PIXELS)) == UPRIGHT


def half_transparent() -> Image.Image:
    """Black at alpha 0, 64, 128 and 255, from left to right, each 8 pixels wide."""
    image = Image.new("RGBA", (32, 8))
    for index, alpha in enumerate((0, 64, 128, 255)):
        image.paste((0, 0, 0, alpha), (8 * index, 0, 8 * index + 8, 8))
    return image


def seen_at(pixels: NDArray[np.uint8], *columns: int) -> list[int]:
    """The grey values at some columns of the fourth row."""
    assert (pixels[:, :, 0] == pixels[:, :, 1]).all()
    return [int(pixels[4, column, 0]) for column in columns]


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_alpha_is_composited_on_white(kind: str, options: dict[str, object]) -> None:
    pixels = decode(encoded(half_transparent(), kind, **options), max_pixels=MAX_PIXELS)
    assert seen_at(pixels, 4, 12, 20, 28) == [255, 191, 127, 0]


def test_grey_with_alpha_is_composited_on_white() -> None:
    pixels = decode(encoded(half_transparent().convert("LA"), "PNG"), max_pixels=MAX_PIXELS)
    assert seen_at(pixels, 4, 12, 20, 28) == [255, 191, 127, 0]


def test_colours_under_full_transparency_are_not_seen() -> None:
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    assert (decode(encoded(image, "PNG"), max_pixels=MAX_PIXELS) == 255).all()


def test_a_palette_gives_its_colours() -> None:
    assert corners(decode(encoded(quarters().quantize(4), "PNG"), max_pixels=MAX_PIXELS)) == UPRIGHT


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_the_transparent_entry_of_a_palette_is_white(kind: str) -> None:
    image = Image.new("P", (16, 16), 0)
    image.putpalette([10, 20, 30, 0, 0, 0])
    image.paste(1, (8, 0, 16, 16))
    pixels = decode(encoded(image, kind, transparency=0), max_pixels=MAX_PIXELS)
    assert pixels[8, 4].tolist() == [255, 255, 255]
    assert pixels[8, 12].tolist() == [0, 0, 0]


def test_the_transparent_colour_of_an_rgb_png_is_white() -> None:
    image = Image.new("RGB", (16, 16), (9, 8, 7))
    image.paste((1, 2, 3), (8, 0, 16, 16))
    pixels = decode(encoded(image, "PNG", transparency=(9, 8, 7)), max_pixels=MAX_PIXELS)
    assert pixels[8, 4].tolist() == [255, 255, 255]
    assert pixels[8, 12].tolist() == [1, 2, 3]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_grey_is_three_times_grey(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    pixels = decode(encoded(Image.new("L", (16, 16), 77), kind, **options), max_pixels=MAX_PIXELS)
    assert pixels[8, 8].tolist() == [77, 77, 77]


def test_black_and_white_is_black_and_white() -> None:
    image = Image.new("1", (16, 16), 0)
    image.paste(1, (8, 0, 16, 16))
    pixels = decode(encoded(image, "PNG"), max_pixels=MAX_PIXELS)
    assert (pixels[8, 4].tolist(), pixels[8, 12].tolist()) == ([0, 0, 0], [255, 255, 255])


@pytest.mark.parametrize(
    ("ink", "rgb"), [((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0)), ((0, 0, 0, 0), (255, 255, 255))]
)
def test_the_inks_of_a_cmyk_jpeg_give_their_colours(ink: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    pixels = decode(encoded(Image.new("CMYK", (16, 16), ink), "JPEG", quality=100), max_pixels=MAX_PIXELS)
    assert np.abs(pixels[8, 8].astype(int) - rgb).max() <= 2


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG by hand, for what Pillow does not write. Each row begins with its filter byte, 0."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    extra = b"".join(chunk(*each) for each in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bits_of_grey_keep_the_upper_eight() -> None:
    data = png(4, 1, 16, 0, b"\0" + struct.pack(">4H", 0, 0x00FF, 0x8000, 0xFFFF))
    assert decode(data, max_pixels=MAX_PIXELS)[0].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3]


def test_the_transparent_value_of_sixteen_bits_of_grey_is_white() -> None:
    data = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0x1234, 0x1235), (b"tRNS", struct.pack(">H", 0x1234)))
    assert decode(data, max_pixels=MAX_PIXELS)[0].tolist() == [[255] * 3, [0x12] * 3]


def test_sixteen_bits_of_colour_keep_the_upper_eight() -> None:
    data = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 0x1234, 0x8000, 0xFFFF))
    assert decode(data, max_pixels=MAX_PIXELS)[0].tolist() == [[0x12, 0x80, 0xFF]]


def test_sixteen_bits_with_alpha_are_composited_on_white() -> None:
    data = png(1, 1, 16, 6, b"\0" + struct.pack(">4H", 0, 0x8000, 0xFFFF, 0))
    assert decode(data, max_pixels=MAX_PIXELS)[0].tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", pytest.param("AVIF", marks=needs_avif)])
def test_of_an_animation_the_first_frame_is_seen(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in (BLUE, RED, GREEN)]
    pixels = decode(encoded(frames[0], kind, save_all=True, append_images=frames[1:]), max_pixels=MAX_PIXELS)
    assert np.abs(pixels[16, 16].astype(int) - BLUE).max() <= 12


@pytest.mark.parametrize("size", [(1100, 1300), (20, 60_000), (60_000, 20)])
def test_an_image_of_many_strips_is_seen_as_one(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), "PNG", compress_level=1)
    assert np.array_equal(decode(data, max_pixels=2_000_000), noise)


def test_a_wrong_name_or_type_does_not_matter_as_only_content_counts() -> None:
    assert decode(encoded(quarters(), "WEBP"), max_pixels=MAX_PIXELS).shape == (64, 96, 3)


def failure(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"<!DOCTYPE html><html><body>404</body></html>",
        b"%PDF-1.7\n",
        b"\0" * 64,
        b"RIFF\x24\0\0\0WAVEfmt ",
        b"BM is how this text begins",
        b"\xff\xd8",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    ],
    ids=["nothing", "html", "pdf", "zeros", "wav", "text", "two bytes", "svg"],
)
def test_what_is_no_known_image_is_unsupported(data: bytes) -> None:
    assert failure(data).reason is FailureReason.UNSUPPORTED_FORMAT


def test_the_message_shows_what_the_file_begins_with() -> None:
    assert "b'<!DOCTYPE ht'" in str(failure(b"<!DOCTYPE html>"))
    assert "0 bytes" in str(failure(b""))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", pytest.param("AVIF", marks=needs_avif)])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_cut_short_is_refused(kind: str, share: float) -> None:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    error = failure(data[: int(len(data) * share)])
    assert error.reason is FailureReason.TRUNCATED_IMAGE
    assert kind in str(error).upper()


def test_a_jpeg_with_stray_bytes_is_forgiven_as_viewers_do() -> None:
    data = encoded(quarters(), "JPEG", quality=95)
    assert corners(decode(data[:-2] + b"\x12\x34\x56" + data[-2:], max_pixels=MAX_PIXELS)) == UPRIGHT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", pytest.param("AVIF", marks=needs_avif)])
def test_an_image_of_more_pixels_than_allowed_is_too_large(kind: str) -> None:
    data = encoded(Image.new("RGB", (64, 64)), kind)
    assert decode(data, max_pixels=4096).shape == (64, 64, 3)
    error = failure(data, max_pixels=4095)
    assert error.reason is FailureReason.IMAGE_TOO_LARGE
    assert "4096" in str(error)
    assert "4095" in str(error)


def webp_bomb() -> bytes:
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16382).to_bytes(3, "little") * 2
    body += b"VP8L" + struct.pack("<I", 6) + b"\x2f" + (16382 << 14 | 16382).to_bytes(4, "little") + b"\0"
    return b"RIFF" + struct.pack("<I", len(body)) + body


def gif_bomb() -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\1\0\0;"


@pytest.mark.parametrize("kind", ["png", "webp", "gif"])
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    bombs = {"png": png(60_000, 60_000, 8, 2, b"\0" * 1000), "webp": webp_bomb(), "gif": gif_bomb()}
    assert failure(bombs[kind], max_pixels=64_000_000).reason is FailureReason.IMAGE_TOO_LARGE


def test_a_jpeg_of_endless_scans_is_a_bomb() -> None:
    data = encoded(quarters(), "JPEG", progressive=True)
    start = data.index(b"\xff\xda")
    scan = data[start : data.index(b"\xff\xda", start + 2)]
    assert failure(data[:start] + scan * 1000 + data[start:]).reason is FailureReason.IMAGE_TOO_LARGE


@pytest.mark.parametrize("change", [lambda error: error.reason, str])
def test_an_error_survives_pickling(change: Callable[[ImageError], object]) -> None:
    import pickle

    error = failure(b"no image")
    assert change(pickle.loads(pickle.dumps(error))) == change(error)
