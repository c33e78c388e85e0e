"""Small pictures for tests."""

import io

from PIL import Image
from PIL.PngImagePlugin import PngInfo


def png(red: int, size: int = 20, parameters: str | None = None) -> bytes:
    """A PNG of one colour, whose every pixel's red is `red`; with the text that a generator would leave."""
    info = PngInfo()
    if parameters is not None:
        info.add_text("parameters", parameters)
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), (red, 0, 0)).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()
