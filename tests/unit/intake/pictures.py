"""Small pictures for tests."""

import io

from PIL import Image


def png(red: int, size: int = 20) -> bytes:
    """A PNG of one colour, whose every pixel's red is `red`."""
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (red, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()
