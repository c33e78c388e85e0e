"""Draws where the fine stream sees damage, over the image."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STRONGEST: Final = 0.75
"""How much of the image the strongest colour hides."""
FAINTEST_SCALE: Final = 0.02
"""A change of the score below this is noise: colours are never stretched further."""
DARKEST: Final = 64
"""The grey of black, on which a colour would not be seen."""
GOOD: Final = (36, 86, 184)
DAMAGE: Final = (179, 33, 75)


def heat_map(photo: Image.Image, relief: NDArray[np.float64]) -> Image.Image:
    """The photo in grey, with an explanation's relief, [rows, columns], over it: red where it is above nought, blue
    where below."""
    strength = relief / max(float(np.abs(relief).max()), FAINTEST_SCALE)
    smooth = Image.fromarray(strength.astype(np.float32)).resize(photo.size, Image.Resampling.BICUBIC)
    values = np.clip(np.asarray(smooth), -1, 1)[..., None]
    colour = np.where(values > 0, np.array(DAMAGE), np.array(GOOD))
    grey = DARKEST + np.asarray(photo.convert("L").convert("RGB"), np.float32) * (1 - DARKEST / 255)
    cover = STRONGEST * np.abs(values)
    return Image.fromarray((grey * (1 - cover) + colour * cover).round().astype(np.uint8))
