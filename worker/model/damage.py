"""Damage made to order, each kind from mild to heavy: what training ranks below the image as it was."""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Pixels = NDArray[np.uint8]


def damage(pixels: Pixels, random: np.random.Generator) -> tuple[Pixels, Pixels]:
    """The image with damage of one drawn kind, milder and worse; both mirrored by chance."""
    image = Image.fromarray(pixels)
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    harm = KINDS[str(random.choice(list(KINDS)))]
    mild = random.uniform(0, 0.5)
    worse = mild + random.uniform(0.35, 0.5)
    seed = int(random.integers(1 << 30))
    one, other = (np.asarray(harm(image, strength, np.random.default_rng(seed))) for strength in (mild, worse))
    return one, other


def _between(mild: float, heavy: float, strength: float) -> float:
    """From `mild` at strength 0 to `heavy` at 1, in even ratios, as eyes judge."""
    return float(mild * (heavy / mild) ** strength)


def _jpeg(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    return _saved(image, "JPEG", round(_between(40, 4, strength)))


def _webp(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    return _saved(image, "WEBP", round(25 * (1 - strength)))


def _saved(image: Image.Image, file_format: str, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, file_format, quality=quality)
    return Image.open(file).convert("RGB")


def _blocks(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Squares of 1 to 12 % of the shorter side in one colour each."""
    side = max(2, round(min(image.size) * _between(0.01, 0.12, strength)))
    small = image.resize(_scaled(image, 1 / side), Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.NEAREST)


def _small(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Scaled down to a half to a tenth and up again."""
    small = image.resize(_scaled(image, 1 / _between(2, 10, strength)), Image.Resampling.BICUBIC)
    return small.resize(image.size, Image.Resampling.BICUBIC)


def _scaled(image: Image.Image, scale: float) -> tuple[int, int]:
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def _blur(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(min(image.size) / 512 * _between(1.2, 7, strength)))


def _noise(image: Image.Image, strength: float, random: np.random.Generator) -> Image.Image:
    values = np.asarray(image, np.float32)
    noisy = values + _between(8, 56, strength) * random.standard_normal(values.shape, np.float32)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _sharp(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """Sharpened until edges ring."""
    return image.filter(ImageFilter.UnsharpMask(2 + 2 * strength, round(_between(250, 1000, strength)), 0))


def _bands(image: Image.Image, strength: float, _: np.random.Generator) -> Image.Image:
    """10 to 3 levels a channel, so that smooth tones fall into bands."""
    steps = round(_between(10, 3, strength)) - 1
    levels = np.round(np.asarray(image, np.float32) / 255 * steps) / steps
    return Image.fromarray((255 * levels).astype(np.uint8))


def _misplaced(image: Image.Image, strength: float, random: np.random.Generator) -> Image.Image:
    """A share of its squares replaced by pieces from nearby: the texture stays, the structure breaks."""
    pixels = np.asarray(image)
    broken = pixels.copy()
    side = max(8, min(image.size) // 14)
    for top in range(0, image.height - side + 1, side):
        for left in range(0, image.width - side + 1, side):
            if random.random() < 0.08 + 0.5 * strength:
                y, x = (
                    int(np.clip(start + random.integers(-side, side + 1), 0, length - side))
                    for start, length in ((top, image.height), (left, image.width))
                )
                broken[top : top + side, left : left + side] = pixels[y : y + side, x : x + side]
    return Image.fromarray(broken)


KINDS: dict[str, Callable[[Image.Image, float, np.random.Generator], Image.Image]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "blocks": _blocks,
    "small": _small,
    "blur": _blur,
    "noise": _noise,
    "sharp": _sharp,
    "bands": _bands,
    "misplaced": _misplaced,
}
"""Image and strength (0 to 1; above 0 visible) → image of the same size."""
