"""HEIC and HEIF, by libheif."""

from collections.abc import Mapping
from typing import Final

import pillow_heif

from worker.images.avif import check_boxes
from worker.images.colour import CodedColour, Colour, IccProfile
from worker.images.picture import Picture

_BYTES_A_PIXEL: Final = 16

# What is not the picture is not even opened.
pillow_heif.options.THUMBNAILS = False
pillow_heif.options.DEPTH_IMAGES = False
pillow_heif.options.AUX_IMAGES = False
pillow_heif.options.DECODE_THREADS = 1


def open_heic(data: bytes) -> Picture:
    """The primary image, which libheif turns as the boxes irot and imir say. Raises ImageError where it is a bomb, else
    whatever libheif raises for its headers."""
    check_boxes(data)
    file = pillow_heif.open_heif(data)
    image = file[file.primary_index]
    width, height = image.size
    return Picture(width, height, image.to_pillow, colour=_colour(image.info), memory=width * height * _BYTES_A_PIXEL)


def _colour(info: Mapping[str, object]) -> Colour | None:
    profile, codes = info.get("icc_profile"), info.get("nclx_profile")
    if isinstance(profile, bytes) and profile:
        return IccProfile.of(profile)
    if isinstance(codes, dict):
        return CodedColour.of_codes(codes.get("color_primaries", 1), codes.get("transfer_characteristics", 13))
    return None
