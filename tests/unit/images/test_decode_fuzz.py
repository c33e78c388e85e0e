"""Whatever the bytes, decode gives an image or an ImageError, and nothing else."""

import io
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, features

from tests.unit.images import made_images as made
from worker.images.decode import DecodeLimits, decoded
from worker.images.errors import ImageError
from worker.settings.image_format import ImageFormat

MAX_PIXELS = 250_000


LIMITS = DecodeLimits(MAX_PIXELS, tuple(ImageFormat), max_animation_pixels=20 * MAX_PIXELS)


def _samples() -> dict[str, bytes]:
    """Small files of every format, with the blocks that parsers stumble over: EXIF, palettes, alpha, frames."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    exif = Image.Exif()
    exif[274] = 6
    wanted: list[tuple[str, Image.Image, str, dict[str, object]]] = [
        ("jpeg", image, "JPEG", {"exif": exif.tobytes()}),
        ("progressive", image, "JPEG", {"progressive": True}),
        ("cmyk", image.convert("CMYK"), "JPEG", {}),
        ("grey jpeg", image.convert("L"), "JPEG", {}),
        ("png", image, "PNG", {"exif": exif.tobytes()}),
        ("palette", image.quantize(8), "PNG", {"transparency": 1}),
        ("alpha", image.convert("RGBA"), "PNG", {}),
        ("bits", image.convert("1"), "PNG", {"transparency": 0}),
        ("sixteen", Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257), "PNG", {}),
        ("apng", image, "PNG", {"save_all": True, "append_images": [image.rotate(90)]}),
        ("webp", image, "WEBP", {"exif": exif.tobytes()}),
        ("lossless", image.convert("RGBA"), "WEBP", {"lossless": True}),
        ("animated", image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
        ("gif", image, "GIF", {"transparency": 3}),
        ("frames", image, "GIF", {"save_all": True, "append_images": [image.rotate(90)]}),
    ]
    if features.check("avif"):
        wanted.append(("avif", image, "AVIF", {"exif": exif.tobytes()}))
    samples = {}
    for name, picture, kind, options in wanted:
        buffer = io.BytesIO()
        picture.save(buffer, kind, **options)
        samples[name] = buffer.getvalue()
    small = made.picture(32, 24)
    samples |= {
        "hidden default": made.apng_with_hidden_default(),
        "small frames": made.gif(made.gif_image(20, 10, 9, 7), made.gif_image(8, 8, control=(3, 4))),
        "profile": made.rgb_png(made.chunk(b"iCCP", made.iccp(made.icc(made.P3, 2.2))), made.codes(9, 16)),
        "heic": made.heic(small),
        "jxl": made.jxl(small),
        "bmp": made.encoded(small, "BMP"),
        "tiff": made.encoded(small, "TIFF", compression="tiff_lzw"),
        "jpeg 2000": made.encoded(small, "JPEG2000"),
    }
    return samples


SAMPLES = _samples()

edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=40)),
        st.tuples(st.just("remove"), st.floats(0, 1, exclude_max=True), st.integers(1, 60)),
        st.tuples(st.just("repeat"), st.floats(0, 1, exclude_max=True), st.integers(1, 60)),
        st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.none()),
    ),
    min_size=1,
    max_size=6,
)


def edited(data: bytes, changes: list[tuple[str, float, bytes | int | None]]) -> bytes:
    for what, where, argument in changes:
        at = int(where * len(data))
        if what == "cut":
            data = data[:at]
        elif isinstance(argument, bytes):
            data = data[:at] + argument + data[at + (len(argument) if what == "set" else 0) :]
        elif isinstance(argument, int):
            data = data[:at] + (data[at : at + argument] * 2 if what == "repeat" else b"") + data[at + argument :]
    return data


def _is_an_image_or_an_image_error(data: bytes) -> None:
    try:
        with decoded(data, LIMITS) as shown:
            for pixels in shown.pixels:
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3
                assert pixels.dtype == np.uint8
                assert 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    except ImageError:
        return


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(SAMPLES))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(changes=edits)
def test_a_mutated_file_gives_an_image_or_an_image_error(
    name: str, changes: list[tuple[str, float, bytes | int | None]]
) -> None:
    _is_an_image_or_an_image_error(edited(SAMPLES[name], changes))


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [
            b"\xff\x0a",
            b"BM",
            b"II*\0",
            b"\xff\xd8\xff",
            b"\x89PNG\r\n\x1a\n",
            b"RIFF\0\0\0\0WEBP",
            b"GIF89a",
            b"\0\0\0\x1cftypavif\0\0\0\0",
            b"",
        ]
    ),
    rest=st.binary(max_size=200),
)
def test_noise_after_a_true_beginning_gives_an_image_error_or_an_image(head: bytes, rest: bytes) -> None:
    _is_an_image_or_an_image_error(head + rest)


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_a_file_cut_anywhere_gives_an_image_or_an_image_error(name: str) -> None:
    data = SAMPLES[name]
    for length in range(0, len(data), max(1, len(data) // 150)):
        _is_an_image_or_an_image_error(data[:length])


@pytest.mark.parametrize("name", ["jpeg", "grey jpeg", "progressive"])
@pytest.mark.parametrize("size", [(65535, 65535), (0, 31), (24, 0), (1, 1), (500, 500)])
def test_a_jpeg_that_lies_about_its_size_gives_an_image_or_an_image_error(name: str, size: tuple[int, int]) -> None:
    data = SAMPLES[name]
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    _is_an_image_or_an_image_error(data[: frame + 5] + struct.pack(">HH", *size) + data[frame + 9 :])
