"""Degrades images in common ways: blur, JPEG compression, noise, downscaling."""

from collections.abc import Callable, Mapping
from io import BytesIO

import numpy as np
from PIL import Image, ImageFilter

Degradation = Callable[[Image.Image], bytes]
"""From an RGB image to an encoded, worse one of the same size."""


def _encode(image: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _blur(image: Image.Image) -> bytes:
    return _encode(image.filter(ImageFilter.GaussianBlur(max(image.size) / 128)), 95)


def _jpeg(image: Image.Image) -> bytes:
    return _encode(image, 6)


def _noise(image: Image.Image) -> bytes:
    pixels = np.asarray(image, np.float32)
    noisy = pixels + np.random.default_rng(0).normal(0, 40, pixels.shape).astype(np.float32)
    return _encode(Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)), 95)


def _downscale(image: Image.Image) -> bytes:
    small = image.resize((max(image.width // 6, 1), max(image.height // 6, 1)), Image.Resampling.BICUBIC)
    return _encode(small.resize(image.size, Image.Resampling.BICUBIC), 95)


DEGRADATIONS: Mapping[str, Degradation] = {
    "blur": _blur,
    "jpeg": _jpeg,
    "noise": _noise,
    "downscale": _downscale,
}
"""Name → what it does: Gaussian blur, JPEG quality 6, Gaussian noise, a sixth of the size and back."""
