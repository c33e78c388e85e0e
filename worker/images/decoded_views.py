"""From an image's bytes to what the model asks to see of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from worker.images.decode import DECODE_MEMORY, DecodeLimits, decoded
from worker.images.memory import Budget
from worker.images.picture import Pixels
from worker.images.views import least_side, make_views
from worker.view import ViewSpec


@dataclass(frozen=True, slots=True)
class DecodedViews:
    """`views`: view name → uint8 array; of an animation with a leading axis, one entry for each number.

    `frame_count` and `numbers`: all frames of the image, and those that were decoded. `pixels`: the whole image, or the
    first frame, [height, width, 3] RGB, where it was asked for. `seconds`: how long all frames are shown, once; 0 for a
    still image, and where that is not known.
    """

    views: Mapping[str, NDArray[np.uint8]]
    frame_count: int
    numbers: tuple[int, ...]
    pixels: Pixels | None = None
    seconds: float = 0.0


class ViewDecoder(Protocol):
    """Makes views of images."""

    def decode(self, data: bytes, *, wants_pixels: bool = False, frame: int | None = None) -> DecodedViews:
        """All frames that are sampled of an animation, or only the frame of this number.

        Raises ImageError for what cannot be judged, DecoderUnavailableError while nothing can be decoded.
        """


class ThreadDecoder:
    """Decodes on the thread that asks."""

    def __init__(self, limits: DecodeLimits, views: Mapping[str, ViewSpec]) -> None:
        self._limits = limits
        self._views = views

    def decode(self, data: bytes, *, wants_pixels: bool = False, frame: int | None = None) -> DecodedViews:
        return decode_views(data, self._limits, self._views, wants_pixels=wants_pixels, frame=frame)


def decode_views(
    data: bytes,
    limits: DecodeLimits,
    views: Mapping[str, ViewSpec],
    *,
    wants_pixels: bool = False,
    frame: int | None = None,
    budget: Budget = DECODE_MEMORY,
) -> DecodedViews:
    """Decodes in memory of `budget`. Raises ImageError for what cannot be judged."""
    frames: list[Mapping[str, NDArray[np.uint8]]] = []
    first: Pixels | None = None
    with decoded(data, limits, least_side=least_side(views), frame=frame, budget=budget) as shown:
        for pixels in shown.pixels:
            if wants_pixels and first is None:
                first = pixels
            frames.append(make_views(pixels, views))
    made = frames[0]
    if shown.count > 1:
        made = {name: np.stack([each[name] for each in frames]) for name in views}
    return DecodedViews(made, shown.count, shown.numbers, first, shown.seconds)
