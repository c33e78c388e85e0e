"""BMP, TIFF and JPEG 2000, by Pillow."""

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Final

from PIL import ImageFile
from PIL.BmpImagePlugin import BmpImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.TiffImagePlugin import TiffImageFile

from worker.images.colour import IccProfile
from worker.images.errors import bomb, truncated
from worker.images.picture import BYTES_A_PIXEL, Picture

TIFF_TAGS: Final = 500
"""Of the first page. Scanners and cameras write a few dozen."""
TIFF_STRIPS: Final = 100_000
_BYTES_A_PIXEL_JPEG2000: Final = 24
"""OpenJPEG computes in whole numbers of 32 bits."""
_STRIP_TAGS: Final = frozenset({273, 279, 324, 325})
_SIZES: Final = (1, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)


def open_bmp(data: bytes) -> Picture:
    """Raises whatever Pillow raises."""
    return _opened(BmpImageFile, data, BYTES_A_PIXEL)


def open_jpeg2000(data: bytes) -> Picture:
    """Raises whatever Pillow raises."""
    return _opened(Jpeg2KImageFile, data, _BYTES_A_PIXEL_JPEG2000)


def open_tiff(data: bytes) -> Picture:
    """The first page, which Pillow turns upright. Raises ImageError where it has too many tags or strips, else whatever
    Pillow raises."""
    _check_tags(data)
    return _opened(TiffImageFile, data, BYTES_A_PIXEL)


def _opened(opener: Callable[[BytesIO], ImageFile.ImageFile], data: bytes, bytes_a_pixel: int) -> Picture:
    image = opener(BytesIO(data))
    return Picture(
        image.width,
        image.height,
        lambda: image,
        colour=IccProfile.of(image.info.get("icc_profile") or b""),
        memory=image.width * image.height * bytes_a_pixel,
    )


def _check_tags(data: bytes) -> None:
    """Pillow reads the values of all tags, which may all lie at the same place, and makes an object for each strip."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, start)
        if count > TIFF_TAGS:
            raise bomb(f"a TIFF of {count} tags on its first page")
        total = 0
        for index in range(count):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, start + 2 + 12 * index)
            total += values * (_SIZES[kind] if kind < len(_SIZES) else 8)
            if tag in _STRIP_TAGS and values > TIFF_STRIPS:
                raise bomb(f"a TIFF of {values} strips")
    except struct.error as error:
        raise truncated("a TIFF whose first page lies behind its end") from error
    if total > len(data) + 4 * count:
        raise bomb(f"a TIFF of {len(data)} bytes whose tags have {total}")
