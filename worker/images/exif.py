"""The tags of an Exif block that Sluice reads: the orientation, and texts.

Pillow's reader is left alone: it reads all tags, and falls back to XMP for the orientation, which browsers ignore.
"""

import struct
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

_ORIENTATION: Final = 274
_SHORT: Final = 3
_ENTRIES: Final = 1000
_SIZES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 6: 1, 7: 1}
"""Bytes of a value by its type: bytes, ASCII, SHORT, LONG, signed bytes, undefined."""


class _Entry(NamedTuple):
    """One entry of a directory; its value, or the value's offset, is at `at` + 8 of the block."""

    tag: int
    kind: int
    values: int
    at: int


def orientation(block: bytes) -> int:
    """Tag 274 of the first directory (Exif 2.32, 4.6.4), 1 to 8; 1 where it is missing or the block is damaged, since
    the picture is not. `block` begins with the TIFF header. As in browsers, only a SHORT counts.
    """
    order = _byte_order(block)
    if order is None:
        return 1
    try:
        for entry in _entries(block, order, _first_directory(block, order)):
            if entry.tag == _ORIENTATION:
                (value,) = struct.unpack_from(f"{order}H", block, entry.at + 8)
                return value if entry.kind == _SHORT and entry.values == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def tags(block: bytes, wanted: Collection[int], most_bytes: int, *, below: int | None = None) -> dict[int, bytes]:
    """The bytes of the wanted tags of the first directory, or of the directory that its tag `below` points at; each cut
    after `most_bytes`. A tag that is damaged is left out."""
    found: dict[int, bytes] = {}
    order = _byte_order(block)
    if order is None:
        return found
    try:
        start = _first_directory(block, order)
        if below is not None:
            pointers = (entry for entry in _entries(block, order, start) if entry.tag == below)
            pointer = next(pointers, None)
            if pointer is None:
                return found
            (start,) = struct.unpack_from(f"{order}I", block, pointer.at + 8)
        for entry in _entries(block, order, start):
            size = _SIZES.get(entry.kind, 0) * entry.values
            if entry.tag in wanted and entry.tag not in found and size:
                at = entry.at + 8
                if size > 4:
                    (at,) = struct.unpack_from(f"{order}I", block, at)
                found[entry.tag] = block[at : at + min(size, most_bytes)]
    except struct.error:
        pass
    return found


def is_big_endian(block: bytes) -> bool:
    return block[:2] == b"MM"


def _byte_order(block: bytes) -> str | None:
    return {b"II": "<", b"MM": ">"}.get(bytes(block[:2]))


def _first_directory(block: bytes, order: str) -> int:
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    return int(start)


def _entries(block: bytes, order: str, start: int) -> Iterator[_Entry]:
    """Raises struct.error where the directory is cut."""
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for index in range(min(count, _ENTRIES)):
        at = start + 2 + 12 * index
        tag, kind, values = struct.unpack_from(f"{order}HHI", block, at)
        yield _Entry(tag, kind, values, at)
