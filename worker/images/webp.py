"""WebP (RFC 9649), whose chunks are read here and whose pixels are by Pillow.

Pillow refuses a file that lacks a part of what nobody sees, such as Exif at its end. So it gets what makes the picture.
"""

from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL.WebPImagePlugin import WebPImageFile

from worker.images.colour import Colour, IccProfile
from worker.images.errors import bomb, truncated

CHUNKS: Final = 100_000

_PICTURE: Final = frozenset({b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF"})
_HAS_PROFILE, _HAS_EXIF, _HAS_XMP = 0x20, 0x08, 0x04


@dataclass(frozen=True, slots=True)
class WebP:
    """The picture alone, its colours, and how long all its frames are shown."""

    data: bytes
    colour: Colour | None
    seconds: float

    def open(self) -> WebPImageFile:
        """Reads the header. Raises whatever Pillow raises."""
        return WebPImageFile(BytesIO(self.data))


def read_webp(data: bytes) -> WebP:
    """Raises ImageError where there are too many chunks, or a part of the picture is missing."""
    profile = b""
    kept: list[bytes | memoryview] = []
    names = set()
    seconds = 0.0
    view = memoryview(data)
    at = 12
    stop = 8 + int.from_bytes(data[4:8], "little")  # what follows is no part of the image
    for _ in range(CHUNKS):
        if at + 8 > min(len(data), stop):
            break
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        end = at + 8 + size
        if name in _PICTURE:
            if end > len(data):
                raise truncated("a WebP that ends within its picture")
            kept += _chunk(name, view[at + 8 : end])
            names.add(name)
            if name == b"ANMF":
                seconds += int.from_bytes(data[at + 20 : at + 23], "little") / 1000
        elif name == b"ICCP" and end <= len(data):
            profile = profile or data[at + 8 : end]
        at = end + size % 2
    else:
        raise bomb(f"a WebP of more than {CHUNKS} chunks")
    if names.isdisjoint((b"VP8 ", b"VP8L", b"ANMF")):
        raise truncated("a WebP without a picture")
    size = 4 + sum(map(len, kept))
    return WebP(b"".join([b"RIFF", size.to_bytes(4, "little"), b"WEBP", *kept]), IccProfile.of(profile), seconds)


def _chunk(name: bytes, content: memoryview) -> list[bytes | memoryview]:
    """The parts of a chunk, of which a picture is not copied."""
    header = name + len(content).to_bytes(4, "little")
    if name == b"VP8X" and content:
        return [
            header,
            bytes([content[0] & ~(_HAS_PROFILE | _HAS_EXIF | _HAS_XMP)]),
            content[1:],
            bytes(len(content) % 2),
        ]
    return [header, content, bytes(len(content) % 2)]
