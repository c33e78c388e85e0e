"""Finds the Exif and XMP items of HEIF files: AVIF and HEIC (ISO/IEC 23008-12, annex A; boxes: ISO/IEC 14496-12).

In Python alone: the libraries that decode these formats parse hostile bytes in processes of their own, and this is
read beside them.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from worker.images.boxes import boxes

Span = tuple[int, int]
BOXES: Final = 100_000
"""Boxes that are looked at, of each level."""
ITEMS: Final = 10_000
"""Items and extents that are looked at. A picture of many tiles has hundreds."""
_XMP_TYPE: Final = b"application/rdf+xml"


def read_items(data: bytes, most: int) -> tuple[bytes, bytes]:
    """The first Exif block, from its TIFF header on, and the first XMP packet, `most` bytes of each; empty where there
    is none. Raises ValueError for damaged boxes."""
    meta = next((box for box in islice(boxes(data), BOXES) if box.kind == b"meta"), None)
    if meta is None:
        return b"", b""
    found: dict[bytes, Span] = {}
    for box in islice(boxes(data, meta.start + 4, meta.end), BOXES):
        found.setdefault(box.kind, (box.start, box.end))
    if b"iinf" not in found or b"iloc" not in found:
        return b"", b""
    wanted = _kinds(data, *found[b"iinf"])
    exif = xmp = b""
    for item, extents in _places(_Reader(data, *found[b"iloc"]), found.get(b"idat")):
        holds = wanted.get(item)
        if holds == b"Exif" and not exif:
            block = _content(data, extents, most + 64)
            exif = block[4 + int.from_bytes(block[:4], "big") :][:most]
        elif holds == b"mime" and not xmp:
            xmp = _content(data, extents, most)
    return exif, xmp


class _Reader:
    """Reads numbers within a span. Raises ValueError behind its end."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self._data = data
        self._at = start
        self._end = end

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes; 0 for a size of 0."""
        if self._at + size > self._end:
            raise ValueError("a box ends early")
        value = int.from_bytes(self._data[self._at : self._at + size], "big")
        self._at += size
        return value


def _kinds(data: bytes, start: int, end: int) -> dict[int, bytes]:
    """The ids of the items that hold Exif (`Exif`) or XMP (`mime`)."""
    reader = _Reader(data, start, end)
    version = reader.number(4) >> 24
    entries = start + 4 + (2 if version == 0 else 4)
    found: dict[int, bytes] = {}
    for kind, at, stop, _ in islice(boxes(data, entries, end), ITEMS):
        if kind != b"infe":
            continue
        entry = _Reader(data, at, stop)
        version = entry.number(4) >> 24
        if version < 2:
            continue  # of an older standard, without types
        size = 2 if version == 2 else 4
        item, _protection = entry.number(size), entry.number(2)
        after = at + 4 + size + 2
        item_type = data[after : after + 4]
        if item_type == b"Exif" or (
            item_type == b"mime" and _XMP_TYPE in data[after + 4 : min(stop, after + 4 + 1024)]
        ):
            found[item] = item_type
    return found


def _places(reader: _Reader, idat: Span | None) -> Iterator[tuple[int, list[Span]]]:
    """Items, and the parts of the file that they consist of."""
    version = reader.number(4) >> 24
    sizes = reader.number(2)
    offset_size, length_size, base_size, index_size = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
    seen = 0
    for _ in range(min(reader.number(2 if version < 2 else 4), ITEMS)):
        item = reader.number(2 if version < 2 else 4)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)  # the file that it lies in: this one
        base = reader.number(base_size)
        extents: list[Span] = []
        for _ in range(reader.number(2)):
            seen += 1
            if seen > ITEMS:
                return
            if version:
                reader.number(index_size)
            start, length = base + reader.number(offset_size), reader.number(length_size)
            if method == 1 and idat is not None:
                start += idat[0]
            if method in (0, 1):
                extents.append((start, start + length))
        yield item, extents


def _content(data: bytes, extents: list[Span], most: int) -> bytes:
    content = b""
    for start, end in extents:
        content += data[start : min(end, start + most - len(content))]
        if len(content) >= most:
            break
    return content
