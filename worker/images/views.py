"""From pixels to the views a model asks for.

Views equal those of Pillow (antialiased bicubic or bilinear) and torchvision's Resize and CenterCrop, on which CLIP
preprocessing stands, to within a few of 255 steps. Pillow works without SIMD, and on pixels that the crop then throws
away; here fast_image_resize computes the window only. Its convolution follows Pillow's, but it runs the vertical pass
first, and as each pass rounds and clips to 8 bits, that shifts pixels at hard edges by up to 30 steps. So each pass is
asked for by itself, in Pillow's order.
"""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from cykooz_resizer import (
    CropBox,
    FilterType,
    ImageData,
    PixelType,
    ResizeAlg,
    ResizeOptions,
    Resizer,
)
from numpy.typing import NDArray

from worker.view import ViewSpec

Pixels = NDArray[np.uint8]

_FILTERS = {"bicubic": (FilterType.catmull_rom, 2), "bilinear": (FilterType.bilinear, 1)}
"""Name → the same kernel by the library's name, and its reach in pixels on either side."""

_BAND_PIXELS = 131_072
"""Images go through the library, which copies them, in bands of this size. Larger ones made the C library give memory
back to the system after every image and fetch it again, which took as long as the work; smaller ones call too often."""


def make_views(pixels: Pixels, specs: Mapping[str, ViewSpec]) -> dict[str, Pixels]:
    """One contiguous array of `spec.shape` for each view, from an image of shape (H, W, 3), RGB."""
    return {name: _view(pixels, spec) for name, spec in specs.items()}


def least_side(specs: Mapping[str, ViewSpec]) -> int | None:
    """How long the shorter side of an image must be for these views; None where one shows the image's own pixels."""
    if not specs or any(spec.resize == "none" for spec in specs.values()):
        return None
    return 2 * max(spec.size for spec in specs.values())


def _view(pixels: Pixels, spec: ViewSpec) -> Pixels:
    height, width = _scaled_size(pixels.shape[0], pixels.shape[1], spec)
    windows = [
        _window(pixels, (height, width), (top, left), spec.size, spec.interpolation)
        for top, left in _corners(height, width, spec)
    ]
    return np.ascontiguousarray(windows[0]) if spec.crops == 1 else np.stack(windows)


def _scaled_size(height: int, width: int, spec: ViewSpec) -> tuple[int, int]:
    """(H, W) of the whole image before windows are cut; the longer side is cut to an integer as torchvision does."""
    if spec.resize == "squash":
        return spec.size, spec.size
    if spec.resize == "none" and min(height, width) >= spec.size:
        return height, width
    if height <= width:
        return spec.size, int(spec.size * width / height)
    return int(spec.size * height / width), spec.size


def _corners(height: int, width: int, spec: ViewSpec) -> Iterator[tuple[int, int]]:
    """(top, left) of each window, in reading order."""
    rows, columns = _grid(spec.crops, height, width)
    for top in _offsets(height - spec.size, rows):
        for left in _offsets(width - spec.size, columns):
            yield top, left


def _grid(crops: int, height: int, width: int) -> tuple[int, int]:
    """Rows and columns of so many windows, shaped as much like the image as the number allows."""
    pairs = [(rows, crops // rows) for rows in range(1, crops + 1) if crops % rows == 0]
    return min(pairs, key=lambda pair: abs(math.log(pair[1] * height / (pair[0] * width))))


def _offsets(slack: int, count: int) -> list[int]:
    """Spread evenly from edge to edge; a single one in the middle, rounded as torchvision's CenterCrop does."""
    if count == 1:
        return [round(slack / 2)]
    return [round(index * slack / (count - 1)) for index in range(count)]


@dataclass(frozen=True, slots=True)
class _Span:
    """Along one axis: which source pixels, seen through the kernel, give `length` pixels of the scaled image."""

    first: int
    stop: int
    box_start: float
    box_length: float
    length: int
    resampled: bool

    @classmethod
    def of(cls, source: int, scaled: int, start: int, length: int, reach: int) -> "_Span":
        if source == scaled:
            return cls(start, start + length, 0.0, length, length, resampled=False)
        scale = source / scaled
        margin = math.ceil(reach * max(scale, 1.0)) + 1
        first = max(0, math.floor(start * scale) - margin)
        stop = min(source, math.ceil((start + length) * scale) + margin)
        box_start = start * scale - first
        return cls(first, stop, box_start, min(length * scale, stop - first - box_start), length, resampled=True)


def _window(pixels: Pixels, scaled: tuple[int, int], corner: tuple[int, int], size: int, interpolation: str) -> Pixels:
    """The square of `size` at `corner` (top, left) of the image as it would be if scaled to `scaled` (H, W)."""
    kernel, reach = _FILTERS[interpolation]
    rows, columns = (_Span.of(pixels.shape[axis], scaled[axis], corner[axis], size, reach) for axis in (0, 1))
    window = pixels[rows.first : rows.stop, columns.first : columns.stop]
    # Pillow 13, Resample.c: the vertical pass comes first where it takes away more than twice what the other does.
    shrink = pixels.shape[0] - scaled[0]
    vertical_first = shrink > 0 and shrink > 2 * (pixels.shape[1] - scaled[1])
    for axis in (0, 1) if vertical_first else (1, 0):
        span = (rows, columns)[axis]
        if span.resampled:
            window = _resample(window, axis, span, kernel)
    return window


def _resample(pixels: Pixels, axis: int, span: _Span, kernel: FilterType) -> Pixels:
    shape = (span.length, pixels.shape[1], 3) if axis == 0 else (pixels.shape[0], span.length, 3)
    resampled = np.empty(shape, np.uint8)
    across = 1 - axis
    step = max(1, _BAND_PIXELS // pixels.shape[axis])
    for first in range(0, pixels.shape[across], step):
        band = np.s_[first : first + step] if across == 0 else np.s_[:, first : first + step]
        resampled[band] = _resample_band(pixels[band], axis, span, kernel)
    return resampled


def _resample_band(pixels: Pixels, axis: int, span: _Span, kernel: FilterType) -> Pixels:
    height, width = pixels.shape[:2]
    if axis == 0:
        target_height, target_width = span.length, width
        box = CropBox(0, span.box_start, width, span.box_length)
    else:
        target_height, target_width = height, span.length
        box = CropBox(span.box_start, 0, span.box_length, height)
    source = ImageData(width, height, PixelType.U8x3, pixels.tobytes())
    target = ImageData(target_width, target_height, PixelType.U8x3)
    options = ResizeOptions(ResizeAlg.convolution(kernel), use_alpha=False, crop_box=box)
    Resizer().resize(source, target, options)
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(target_height, target_width, 3)


def _start_pool_of_one_thread() -> None:
    """Has the library start its pool now, of one thread, to which it hands nothing.

    Otherwise it spreads every image over a pool as wide as the machine: our own threads would wait for that pool
    instead of working, and after a fork for threads that are not there. The size comes from the environment, once.
    """
    name = "RAYON_NUM_THREADS"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        make_views(
            np.zeros((2, 2, 3), np.uint8), {"any": ViewSpec(size=16, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))}
        )
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


_start_pool_of_one_thread()
