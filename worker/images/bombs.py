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
REPEATS: Final = {b"iCCP": 16, b"Exif\0\0": 64, b"8BIM": 10_000}
BOXES: Final = 1000
AVIF_HEADER_BYTES: Final = 64 * 1024

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
            raise _bomb(f"it is cut into more than {READS} parts")
        return super().read(size)


def check_scans(data: bytes, pixels: int, max_pixels: int) -> None:
    """A progressive JPEG may ask for the whole picture to be gone over again and again; honest ones have some ten
    scans. Raises ImageError where they are too many for a picture of so many pixels."""
    limit = min(SCANS, SCANS_AT_MAX_PIXELS * max_pixels // max(pixels, 1))
    # Counting is quick, and finds what looks like a scan in other parts, too.
    if data.count(b"\xff\xda") > limit and _scans(data, limit) > limit:
        raise _bomb(f"a JPEG of more than {limit} scans")


def check_repeats(data: bytes) -> None:
    """Some parts cost their reader far more than their bytes: a profile of a PNG unpacks to a megabyte, blocks of
    Exif are put together, settings of Photoshop are walked in Python. Raises ImageError where they are too many."""
    for part, limit in REPEATS.items():
        if data.count(part) > limit:
            raise _bomb(f"it has more than {limit} parts {part!r}")


def check_boxes(data: bytes) -> None:
    """The AVIF library looks for each item among all others, so that many take the square of their number.

    The boxes (ISO/IEC 14496-12, 4.2) that list items and samples must be small. Raises ImageError.
    """
    at = listed = 0
    for _ in range(BOXES):
        if at + 8 > len(data):
            break
        size = int.from_bytes(data[at : at + 4], "big")
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        size = min(size or len(data), len(data) - at)
        if data[at + 4 : at + 8] in (b"meta", b"moov"):
            listed += size
        at += max(size, 8)
    else:
        raise _bomb(f"an AVIF of more than {BOXES} boxes")
    if listed > AVIF_HEADER_BYTES:
        raise _bomb(f"an AVIF whose lists have {listed} bytes, where {AVIF_HEADER_BYTES} are allowed")


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


def _bomb(what: str) -> ImageError:
    return ImageError(FailureReason.IMAGE_TOO_LARGE, f"{what}: a decompression bomb")
