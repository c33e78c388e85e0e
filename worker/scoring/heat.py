"""Draws an explanation's heat map over the image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRONGEST: Final = 0.75
"""Opacity of the strongest colour."""
FAINTEST_SCALE: Final = 0.02
"""A score change below this is noise, so the colour scale covers at least this range."""
DARKEST: Final = 64
"""Black is drawn as this grey, so that colours are visible on it."""
GOOD: Final = (36, 86, 184)
DAMAGE: Final = (179, 33, 75)


def heat_map(photo: Image.Image, relief: NDArray[np.float64]) -> Image.Image:
    """The image in grey with an explanation's relief, [rows, columns], over it: red for positive values, blue for
    negative ones.
    """
    strength = relief / max(float(np.abs(relief).max()), FAINTEST_SCALE)
    smooth = Image.fromarray(strength.astype(np.float32)).resize(photo.size, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth), -1, 1)[..., None]
    colour = np.where(values > 0, np.array(DAMAGE), np.array(GOOD))
    grey = DARKEST + np.asarray(photo.convert("L").convert("RGB"), np.float32) * (1 - DARKEST / 255)
    cover = STRONGEST * np.abs(values)
    return Image.fromarray((grey * (1 - cover) + colour * cover).round().astype(np.uint8))
