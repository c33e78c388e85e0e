"""Frames of an animation side by side in one picture, which the desk's page plays one after the other."""

import math
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.images.decode import DecodeLimits
from worker.images.decoded_views import DecodedViews, ViewDecoder
from worker.settings import ImageSettings
from worker.view import ViewSpec

FRAMES: Final = 24
"""Frames of a sheet: the first, the last, others spread evenly between them, and the one that is asked for."""
SIDE: Final = 480
"""Pixels of a frame on the sheet, both sides: the page stretches it to the animation's own shape."""

_VIEW: Final = "frame"
SHEET_VIEWS: Final = {_VIEW: ViewSpec(size=SIDE, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))}
"""What `make_sheet` needs its decoder to make."""


@dataclass(frozen=True, slots=True)
class FrameSheet:
    """`pixels`: rows of `columns` frames, in the order of `numbers`, which count from 0. `count`: of all frames of the
    animation. `seconds`: how long these are shown, once; 0 where that is not known. `width` and `height`: of the
    animation."""

    pixels: NDArray[np.uint8]
    columns: int
    numbers: tuple[int, ...]
    count: int
    seconds: float
    width: int
    height: int

    def headers(self) -> dict[str, str]:
        """What the page needs to play the frames."""
        return {
            "X-Frame-Columns": str(self.columns),
            "X-Frame-Numbers": ",".join(map(str, self.numbers)),
            "X-Frame-Count": str(self.count),
            "X-Frame-Seconds": f"{self.seconds:.3f}",
        }


def sheet_limits(settings: ImageSettings) -> DecodeLimits:
    """The limits of `make_sheet`'s decoder."""
    return replace(DecodeLimits.of(settings), animation_frames=FRAMES)


def make_sheet(decoder: ViewDecoder, data: bytes, wanted: int) -> FrameSheet:
    """Frames of the animation, with the frame number `wanted` among them. Raises as `decoder` does."""
    made = decoder.decode(data, wants_pixels=True)
    frames = _frames(made)
    if wanted not in frames:
        frames |= _frames(decoder.decode(data, frame=wanted))
    numbers = tuple(sorted(frames))
    columns = math.ceil(math.sqrt(len(numbers)))
    rows = math.ceil(len(numbers) / columns)
    pixels = np.zeros((rows * SIDE, columns * SIDE, 3), np.uint8)
    for index, number in enumerate(numbers):
        top, left = SIDE * (index // columns), SIDE * (index % columns)
        pixels[top : top + SIDE, left : left + SIDE] = frames[number]
    assert made.pixels is not None  # noqa: S101  # they were asked for
    height, width = made.pixels.shape[:2]
    return FrameSheet(pixels, columns, numbers, made.frame_count, made.seconds, width, height)


def _frames(made: DecodedViews) -> dict[int, NDArray[np.uint8]]:
    views = made.views[_VIEW]
    return dict(zip(made.numbers, views if made.frame_count > 1 else views[np.newaxis], strict=True))
