"""An opened image: its header is read, its pixels are not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.images.colour import Colour

Pixels = NDArray[np.uint8]

BYTES_A_PIXEL = 12
"""Of memory while an image is decoded, as measured: the most of all formats but WebP."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What one format's reader hands to `decode`, which checks the limits before it calls `load`."""

    width: int
    height: int
    """Before `orientation` turns it."""
    load: Callable[[], Image.Image | Pixels]
    """The pixels as a Pillow image of any mode, or as an array (H, W, 3) of RGB. Raises whatever its decoder raises."""
    orientation: int = 1
    """As Exif numbers them, 1 to 8."""
    colour: Colour | None = None
    """The colours of the pixels; None: sRGB."""
    memory: int = 0
    """Bytes that `load` takes, with the array that it becomes."""
    frame_count: int = 1
    """Of an animation; 1 for a still image."""
    seconds: float = 0.0
    """How long all frames of an animation are shown, once; 0 where that is not known."""
    frames: Callable[[Sequence[int]], Iterator[Image.Image]] | None = None
    """The frames of these numbers, which rise, as they are seen: each is valid until the next is asked for."""
