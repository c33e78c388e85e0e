"""Views against Pillow and torchvision's rules for sizes and crops, which are what CLIP's preprocessing does."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from worker.images.decode import decode
from worker.images.views import make_views
from worker.samples.sample import SAMPLE_IMAGES
from worker.view import ViewSpec

KERNELS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}

Pixels = NDArray[np.uint8]


def spec(size: int = 224, resize: str = "shortest_side", **options: object) -> ViewSpec:
    return ViewSpec.model_validate(
        {"size": size, "resize": resize, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), **options}
    )


def view(pixels: Pixels, wanted: ViewSpec) -> Pixels:
    return make_views(pixels, {"view": wanted})["view"]


def reference(pixels: Pixels, wanted: ViewSpec) -> Pixels:
    """Pillow's resize of the whole image, to the size torchvision's Resize computes, and torchvision's CenterCrop."""
    image, size = Image.fromarray(pixels), wanted.size
    if wanted.resize == "squash":
        target = (size, size)
    elif image.width <= image.height:
        target = (size, int(size * image.height / image.width))
    else:
        target = (int(size * image.width / image.height), size)
    image = image.resize(target, KERNELS[wanted.interpolation])
    left, top = round((image.width - size) / 2.0), round((image.height - size) / 2.0)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def assert_equal_within_tolerance(seen: Pixels, expected: Pixels) -> None:
    difference = np.abs(seen.astype(int) - expected)
    assert difference.max() <= 4
    assert difference.mean() <= 1


def hard_edges(height: int, width: int) -> Pixels:
    """Black and white noise: the worst there is for rounding, since every kernel overshoots everywhere."""
    return np.random.default_rng(height * 10_000 + width).integers(0, 2, (height, width, 3), dtype=np.uint8) * 255


SIZES = [
    (512, 512),
    (512, 768),
    (768, 512),
    (512, 1100),
    (1100, 512),
    (1, 1),
    (1, 50),
    (50, 1),
    (3, 700),
    (700, 3),
    (16, 16),
    (223, 225),
    (224, 224),
    (224, 500),
    (500, 224),
    (448, 448),
    (333, 2000),
    (2000, 333),
]


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("resize", ["shortest_side", "squash"])
def test_a_view_equals_the_clip_reference(height: int, width: int, resize: str, interpolation: str) -> None:
    pixels, wanted = hard_edges(height, width), spec(resize=resize, interpolation=interpolation)
    assert_equal_within_tolerance(view(pixels, wanted), reference(pixels, wanted))


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 600),
    width=st.integers(1, 600),
    size=st.sampled_from([16, 64, 224, 336]),
    resize=st.sampled_from(["shortest_side", "squash"]),
)
def test_a_view_of_any_image_equals_the_clip_reference(height: int, width: int, size: int, resize: str) -> None:
    pixels, wanted = hard_edges(height, width), spec(size, resize)
    assert_equal_within_tolerance(view(pixels, wanted), reference(pixels, wanted))


@pytest.mark.parametrize("resize", ["shortest_side", "squash"])
def test_the_views_of_real_images_equal_the_clip_reference(resize: str) -> None:
    files = sorted(SAMPLE_IMAGES.glob("*.jpg"))
    assert files, f"no samples below {SAMPLE_IMAGES}"
    for file in files:
        pixels = decode(file.read_bytes(), max_pixels=10_000_000)
        assert_equal_within_tolerance(view(pixels, spec(resize=resize)), reference(pixels, spec(resize=resize)))


def test_an_image_as_long_as_it_may_be_gives_its_middle_without_being_scaled_whole() -> None:
    """At full length this one would be scaled to 224 x 14,336,000 pixels."""
    pixels = np.zeros((1, 64_000, 3), np.uint8)
    pixels[:, 31_990:32_010] = 200
    assert (view(pixels, spec()) == 200).all()
    assert view(pixels, spec(resize="none", crop="grid", crops=4)).shape == (4, 224, 224, 3)


def test_an_image_of_many_bands_is_seen_as_one() -> None:
    pixels = hard_edges(2100, 2100)
    assert_equal_within_tolerance(view(pixels, spec()), reference(pixels, spec()))
    assert_equal_within_tolerance(view(pixels[:, :2000], spec()), reference(pixels[:, :2000], spec()))


def ramp(height: int, width: int) -> Pixels:
    """Every pixel tells where it stood: row in red, column in green (both modulo 256), their upper bits in blue."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows % 256, columns % 256, rows // 256 * 16 + columns // 256], axis=-1).astype(np.uint8)


def corner(window: Pixels) -> tuple[int, int]:
    red, green, blue = (int(value) for value in window[0, 0])
    return blue // 16 * 256 + red, blue % 16 * 256 + green


def test_a_grid_keeps_native_pixels_and_goes_from_edge_to_edge_in_reading_order() -> None:
    pixels = ramp(512, 512)
    windows = view(pixels, spec(resize="none", crop="grid", crops=4))
    assert windows.shape == (4, 224, 224, 3)
    assert [corner(window) for window in windows] == [(0, 0), (0, 288), (288, 0), (288, 288)]
    assert np.array_equal(windows[3], pixels[288:512, 288:512])


def test_the_windows_of_a_grid_are_evenly_spread() -> None:
    windows = view(ramp(512, 512), spec(resize="none", crop="grid", crops=9))
    assert [corner(window) for window in windows] == [(y, x) for y in (0, 144, 288) for x in (0, 144, 288)]


@pytest.mark.parametrize(
    ("height", "width", "crops", "expected"),
    [
        (300, 900, 3, [(38, 0), (38, 338), (38, 676)]),
        (900, 300, 3, [(0, 38), (338, 38), (676, 38)]),
        (400, 800, 6, [(0, 0), (0, 288), (0, 576), (176, 0), (176, 288), (176, 576)]),
        (512, 512, 1, [(144, 144)]),
    ],
)
def test_a_grid_is_shaped_as_the_image(height: int, width: int, crops: int, expected: list[tuple[int, int]]) -> None:
    windows = view(ramp(height, width), spec(resize="none", crop="grid", crops=crops))
    assert [corner(window) for window in windows.reshape(crops, 224, 224, 3)] == expected


def test_native_pixels_of_a_centre_crop_are_the_middle() -> None:
    pixels = ramp(512, 700)
    assert np.array_equal(view(pixels, spec(resize="none")), pixels[144:368, 238:462])


@pytest.mark.parametrize("crop", ["center", "grid"])
def test_an_image_smaller_than_a_window_is_scaled_up_to_it(crop: str) -> None:
    pixels = hard_edges(100, 120)
    native = view(pixels, spec(resize="none", crop=crop))
    assert np.array_equal(native, view(pixels, spec(resize="shortest_side")))


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_view_has_the_shape_it_was_specified_with_and_is_contiguous(height: int, width: int) -> None:
    specs = {
        "coarse": spec(resize="squash"),
        "centre": spec(),
        "fine": spec(resize="none", crop="grid", crops=4),
        "five": spec(64, resize="shortest_side", crop="grid", crops=5),
    }
    views = make_views(hard_edges(height, width), specs)
    assert list(views) == list(specs)
    for name, pixels in views.items():
        assert pixels.shape == specs[name].shape
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_views_can_be_made_after_a_fork() -> None:
    pixels = hard_edges(512, 512)
    expected = view(pixels, spec())
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(view(pixels, spec()), expected) else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0


def test_threads_that_decode_and_cut_at_once_do_not_disturb_each_other() -> None:
    files = [file.read_bytes() for file in sorted(SAMPLE_IMAGES.glob("*.jpg"))[:8]]
    specs = {"coarse": spec(resize="squash"), "fine": spec(resize="none", crop="grid", crops=4)}

    def work(data: bytes) -> dict[str, Pixels]:
        return make_views(decode(data, max_pixels=10_000_000), specs)

    alone = [work(data) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(work, files * 12))
    for index, views in enumerate(together):
        for name, pixels in views.items():
            assert np.array_equal(pixels, alone[index % len(files)][name])


def test_a_centre_of_several_windows_is_refused() -> None:
    with pytest.raises(ValueError, match="center takes one window, and crops is 4"):
        spec(crops=4)
