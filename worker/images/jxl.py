"""JPEG XL, by libjxl."""

from functools import partial
from typing import Final

import numpy as np
import pylibjxl
from PIL import Image

from worker.images.colour import IccProfile
from worker.images.picture import Picture

_BYTES_A_PIXEL: Final = 24
"""libjxl computes in floats."""


def open_jxl(data: bytes) -> Picture:
    """The first frame, which libjxl turns upright. Raises RuntimeError where there is no header."""
    header = pylibjxl.probe(data)
    width, height = header["width"], header["height"]
    return Picture(width, height, partial(_load, data), memory=width * height * _BYTES_A_PIXEL)


def _load(data: bytes) -> Image.Image:
    pixels, found = pylibjxl.decode(data, metadata=True)
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    image = Image.fromarray(np.ascontiguousarray(pixels))
    profile = IccProfile.of(found.get("icc_profile", b""))
    return image if profile is None else profile.to_srgb(image)
