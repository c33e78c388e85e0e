"""What images are called."""

from pathlib import PurePosixPath
from typing import Final

_COMMON: Final = ".jpg .jpeg .jpe .jfif .png .apng .webp .gif .avif .avifs .bmp .dib .jxl .heic .heif .hif .tif .tiff"
_RARE: Final = ".jp2 .j2k .jpf .jpx .psd .svg .ico .exr .hdr .dds .qoi .xcf .cr2 .cr3 .nef .arw .dng .raf .orf .rw2"
SUFFIXES: Final = frozenset(f"{_COMMON} {_RARE}".split())
"""A file of such a name is taken for an image whatever it holds."""


def is_image_key(key: str) -> bool:
    """Whether an object may be an image, by its key: one with an image's suffix, or without any."""
    suffix = PurePosixPath(key).suffix.lower()
    return suffix in SUFFIXES or (not suffix and not key.endswith("/"))
