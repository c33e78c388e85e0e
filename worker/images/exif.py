"""The orientation in an Exif block."""

import struct
from typing import Final

_ORIENTATION: Final = 274
_SHORT = 3
_ENTRIES: Final = 1000


def orientation(block: bytes) -> int:
    """Tag 274 of the first directory (Exif 2.32, 4.6.4), 1 to 8; 1 where it is missing or the block is damaged, since
    the picture is not. `block` begins with the TIFF header. As in browsers, only a SHORT counts.

    Pillow's reader is left alone: it reads all tags, and falls back to XMP, which browsers ignore.
    """
    order = {b"II": "<", b"MM": ">"}.get(block[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, start)
        for index in range(min(count, _ENTRIES)):
            at = start + 2 + 12 * index
            tag, kind, values = struct.unpack_from(f"{order}HHI", block, at)
            if tag == _ORIENTATION:
                (value,) = struct.unpack_from(f"{order}H", block, at + 8)
                return value if kind == _SHORT and values == 1 and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
