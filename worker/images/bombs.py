"""Files that are small and within all limits, and yet would keep their reader busy for minutes.

Honest files are far below each limit.
"""

import io
import re
from typing import Final

from schemas import FailureReason
from worker.images.errors import ImageError

READS: Final = 100_000
"""A PNG of 100 MiB, in chunks of 8 KiB as libpng writes them, takes half as many."""
SCANS: Final = 100
SCANS_AT_MAX_PIXELS: Final = 16
"""Of the largest picture that is allowed; smaller ones may have more, up to SCANS."""
REPEATS: Final = {"JPEG": {b"Exif\0\0": 64, b"8BIM": 10_000}, "PNG": {b"iCCP": 16}}

_SEGMENTS: Final = 10_000
_MARKER: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # neither stuffed bytes nor restarts (ITU-T T.81, B.1.1)
_SOI, _EOI, _SOS, _TEM = 0xD8, 0xD9, 0xDA, 0x01


class CountedReads(io.BytesIO):
    """The encoded image. Pillow walks segments, chunks and blocks in Python, reading each: of millions of empty ones,
    it would hold the interpreter for half a minute. Raises ImageError at the READS-th read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = READS

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise bomb(f"it is cut into more than {READS} parts")
        return super().read(size)


def check_scans(data: bytes, pixels: int, max_pixels: int) -> None:
    """A progressive JPEG may ask for the whole picture to be gone over again and again; honest ones have some ten
    scans. Raises ImageError where they are too many for a picture of so many pixels."""
    limit = min(SCANS, SCANS_AT_MAX_PIXELS * max_pixels // max(pixels, 1))
    # Counting is quick, and finds what looks like a scan in other parts, too.
    if data.count(b"\xff\xda") > limit and _scans(data, limit) > limit:
        raise bomb(f"a JPEG of more than {limit} scans")


def check_repeats(data: bytes, kind: str | None) -> None:
    """Some parts cost their reader far more than their bytes: a profile of a PNG unpacks to a megabyte, in a JPEG
    blocks of Exif are put together and settings of Photoshop are walked in Python. `kind` is Pillow's name of the
    format. Raises ImageError where they are too many."""
    for part, limit in REPEATS.get(kind or "", {}).items():
        if len(data) > limit * len(part) and data.count(part) > limit:
            raise bomb(f"it has more than {limit} parts {part!r}")


def _scans(data: bytes, limit: int) -> int:
    """The scans of a JPEG, counted up to one more than `limit`; that also where there are too many other segments."""
    at = found = 0
    for _ in range(_SEGMENTS):
        marker = _MARKER.search(data, at)
        if marker is None or marker[1][0] == _EOI or found > limit:
            return found
        at = marker.end()
        if marker[1][0] not in (_SOI, _TEM):
            found += marker[1][0] == _SOS
            at += int.from_bytes(data[at : at + 2], "big")
    return limit + 1


def bomb(what: str) -> ImageError:
    """The refusal of such a file."""
    return ImageError(FailureReason.IMAGE_TOO_LARGE, f"{what}: a decompression bomb")
