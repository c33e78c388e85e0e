"""The boxes of AVIF, HEIC, JPEG XL and JPEG 2000 files (ISO/IEC 14496-12, 4.2)."""

from collections.abc import Iterator
from typing import NamedTuple


class Box(NamedTuple):
    """Its contents are `data[start:end]`. `is_cut`: it says that it is longer than what is there."""

    kind: bytes
    start: int
    end: int
    is_cut: bool


def boxes(data: bytes | memoryview, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Those that follow each other from `start` to `end`. Fewer than eight bytes at the end are no box."""
    at, stop = start, len(data) if end is None else min(end, len(data))
    while at + 8 <= stop:
        size, header = int.from_bytes(data[at : at + 4], "big"), 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        following = at + max(size or stop - at, header)
        yield Box(bytes(data[at + 4 : at + 8]), at + header, min(following, stop), following > stop)
        at = following
