"""Small pictures for a report."""

from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIDE = 224
QUALITY = 72


def thumbnail(pixels: NDArray[np.uint8]) -> bytes:
    """A JPEG of at most 224 pixels a side, without metadata. `pixels` is [H, W, 3], RGB."""
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return buffer.getvalue()
