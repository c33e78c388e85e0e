"""JPEG, decoded by libjpeg-turbo.

Sections are those of ITU-T T.81. Pillow is left alone here: it walks segments in Python, asks for memory that hostile
ones choose, and hides what the library says about damage.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import simplejpeg
from PIL import Image

from worker.images import exif
from worker.images.colour import Colour, IccProfile
from worker.images.errors import bomb, truncated
from worker.images.picture import Picture, Pixels

SCANS: Final = 100
SCANS_AT_MAX_PIXELS: Final = 16
"""A progressive JPEG may ask for the whole picture to be gone over again and again; honest ones have some ten scans.
The largest picture that is allowed may have so many; smaller ones more, up to SCANS."""
SEGMENTS: Final = 10_000
HUGE_PIXELS: Final = 16_000_000

_MARKER: Final = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # neither stuffed bytes nor restarts (B.1.1)
_SOI, _EOI, _SOS, _APP1, _APP2, _TEM = 0xD8, 0xD9, 0xDA, 0xE1, 0xE2, 0x01
_END: Final = b"\xff\xd9"
_FRAMES: Final = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE: Final = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_BLOCK: Final = range(64)
_CMYK: Final = 4
_RESTARTS: Final = tuple(f"before marker 0xd{number}" for number in range(8))
_HARMLESS: Final = (
    "extraneous bytes",
    "bad icc marker",
    "inconsistent progression",
    "unknown adobe color",
    "invalid sos parameters",
    "unknown jfif revision",
)


@dataclass(slots=True)
class _Outline:
    """What the segments say."""

    width: int = 0
    height: int = 0
    depth: int = 8
    is_progressive: bool = False
    components: tuple[int, ...] = ()
    exif: bytes | None = None
    scans: int = 0
    has_end: bool = False
    profile: dict[int, bytes] = field(default_factory=dict)
    profile_parts: int = 0
    profile_spans: list[tuple[int, int]] = field(default_factory=list)
    """Where in the file the segments with the profile lie."""
    missing: dict[int, set[int]] = field(default_factory=dict)
    """Component → the coefficients of its blocks that no scan has given in full."""


def open_jpeg(data: bytes, max_pixels: int, least_side: int | None = None) -> Picture:
    """The image. One of more than HUGE_PIXELS is decoded at the smallest scale that leaves its shorter side at least
    `least_side` long, where that is given.

    Raises ImageError for one that has scans without end, ValueError for one that has no picture.
    """
    outline = _outline(data, max_pixels)
    if not outline.components:
        raise ValueError("it has no frame header")
    colour = _colour(outline)
    space = {1: "RGB" if colour is None else "GRAY", _CMYK: "CMYK"}.get(len(outline.components), "RGB")
    pixels = outline.width * outline.height
    if pixels <= HUGE_PIXELS:
        least_side = None
    coefficients = 2 * len(outline.components) if outline.is_progressive else 0
    return Picture(
        outline.width,
        outline.height,
        lambda: _load(data, outline, space, least_side or 0),
        orientation=exif.orientation((outline.exif or b"")[6:]),
        colour=colour,
        memory=pixels * (2 * max(3, len(outline.components)) + coefficients),
    )


def _outline(data: bytes, max_pixels: int) -> _Outline:
    found = _Outline()
    at = 0
    for _ in range(SEGMENTS):
        marker = _MARKER.search(data, at)
        if marker is None:
            return found
        kind, at = marker[1][0], marker.end()
        if kind == _EOI:
            found.has_end = True
            return found
        if kind in (_SOI, _TEM):
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        content = data[at + 2 : at + length]
        if kind == _APP2 and content.startswith(b"ICC_PROFILE\0") and length > 16:
            found.profile.setdefault(content[12], content[14:])
            found.profile_parts = content[13]
            found.profile_spans.append((at - 2, at + length))
        else:
            _note(found, kind, content, max_pixels)
        at += length
        if kind == _SOS and not any(found.missing.values()) and not found.is_progressive and data.endswith(_END):
            found.has_end = True  # nothing follows that makes the picture, so it is not searched for markers
            return found
    raise bomb(f"a JPEG of more than {SEGMENTS} segments")


def _note(found: _Outline, kind: int, content: bytes, max_pixels: int) -> None:
    if kind in _FRAMES and not found.components and len(content) >= 6:
        found.depth = content[0]
        found.height, found.width = (int.from_bytes(content[at : at + 2], "big") for at in (1, 3))
        found.components = tuple(content[6 : 6 + 3 * content[5] : 3])
        found.is_progressive = kind in _PROGRESSIVE
        found.missing = {component: set(_BLOCK) for component in found.components}
    elif kind == _SOS and content:
        found.scans += 1
        limit = min(SCANS, SCANS_AT_MAX_PIXELS * max_pixels // max(found.width * found.height, 1))
        if found.scans > limit:
            raise bomb(f"a JPEG of more than {limit} scans")
        _note_scan(found, content)
    elif kind == _APP1 and content.startswith(b"Exif\0\0"):
        found.exif = content if found.exif is None else found.exif


def _note_scan(found: _Outline, content: bytes) -> None:
    """Which coefficients are complete after a scan (B.2.3, G.1.1)."""
    count = content[0]
    components, rest = content[1 : 1 + 2 * count : 2], content[1 + 2 * count :]
    if found.is_progressive and len(rest) >= 3:
        first, last, low = rest[0], rest[1], rest[2] & 15
        if low:
            return
    else:
        first, last = 0, 63
    for component in components:
        if component in found.missing:
            found.missing[component].difference_update(range(first, last + 1))


def _colour(outline: _Outline) -> Colour | None:
    parts = [outline.profile.get(number) for number in range(1, outline.profile_parts + 1)]
    if not parts or None in parts:
        return None
    return IccProfile.of(b"".join(part for part in parts if part is not None))


def _load(data: bytes, outline: _Outline, space: str, least_side: int) -> Image.Image | Pixels:
    if any(outline.missing.values()):
        raise truncated("a JPEG whose last scans are missing")
    if outline.profile_spans:
        data = _without(data, outline.profile_spans)  # libjpeg-turbo refuses the picture for a broken profile
    if not outline.has_end:
        data += _END
    options = {"colorspace": space, "min_height": least_side, "min_width": least_side, "min_factor": 1}
    try:
        pixels = simplejpeg.decode_jpeg(data, **options)
    except ValueError as error:
        _check_complaint(str(error))
        pixels = simplejpeg.decode_jpeg(data, strict=False, **options)
    if space == "RGB":
        return pixels  # type: ignore[no-any-return]
    if space == "GRAY":
        return Image.fromarray(pixels[:, :, 0])
    np.subtract(255, pixels, out=pixels)  # browsers take all inks for inverted, as Adobe writes them
    return Image.frombuffer("CMYK", (pixels.shape[1], pixels.shape[0]), pixels, "raw", "CMYK", 0, 1)


def _without(data: bytes, spans: Sequence[tuple[int, int]]) -> bytes:
    starts, ends = [0, *(end for _, end in spans)], [*(start for start, _ in spans), len(data)]
    view = memoryview(data)
    return b"".join(view[start:end] for start, end in zip(starts, ends, strict=True))


def _check_complaint(complaint: str) -> None:
    """Raises what a complaint of libjpeg-turbo means, unless the picture is whole. Stray bytes mean that a part is lost
    where a restart marker follows them."""
    lowered = complaint.lower()
    if "premature end" in lowered or "instead of rst" in lowered or lowered.endswith(_RESTARTS):
        raise truncated(f"a JPEG with a part of its picture missing ({complaint})")
    if not any(harmless in lowered for harmless in _HARMLESS):
        raise ValueError(complaint)
