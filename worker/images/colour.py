"""From the colours of a file to sRGB, as browsers show them.

An image says what its numbers mean by an ICC profile, by code points (ITU-T H.273), or, in PNG, by a gamma and
chromaticities. Profiles go through Little CMS; the others through tables that are computed here.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter

MAX_PROFILE_BYTES: Final = 4 * 1024 * 1024
"""Larger profiles are ignored. Those of printing presses have some two megabytes."""

_Floats = NDArray[np.float64]
Chromaticities = tuple[float, float, float, float, float, float, float, float]
"""x and y of white, red, green and blue, in this order."""

_GRID: Final = 65
_INVISIBLE: Final = 2
"""Of 255 steps: a profile that changes no colour by more is taken for sRGB."""
_D65: Final = (0.3127, 0.3290)
_SRGB: Final[Chromaticities] = (*_D65, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_PRIMARIES: Final[dict[int, Chromaticities]] = {
    4: (0.310, 0.316, 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_D65, 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (*_D65, 0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (*_D65, 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    11: (0.314, 0.351, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_D65, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_D65, 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
"""Of H.273, table 2; all others are taken for those of sRGB."""
_PQ, _HLG = 16, 18
_REFERENCE_WHITE: Final = 203.0
"""Candelas for each square metre, of the white of a page (ITU-R BT.2408)."""
_PEAK_WHITE: Final = 1000.0

# The tone curve of Chromium 156, read from what it shows: light relative to reference white, before and after.
_TONE_BEFORE: Final = (1.0, 1.2475, 1.5576, 1.9413, 2.4161, 3.0037, 3.7308, 4.6312, _PEAK_WHITE / _REFERENCE_WHITE)
_TONE_AFTER: Final = (0.4985, 0.5906, 0.6654, 0.7379, 0.7991, 0.8632, 0.9216, 0.9823, 1.0)


class Colour(Protocol):
    """What the numbers of an image mean."""

    def to_srgb(self, image: Image.Image) -> Image.Image:
        """An image of mode L, RGB, RGBA or CMYK in sRGB, as RGB or RGBA; unchanged where its mode does not fit."""


@dataclass(frozen=True, slots=True)
class IccProfile:
    """Colours by an ICC profile."""

    transform: ImageCms.ImageCmsTransform
    with_alpha: ImageCms.ImageCmsTransform | None
    mode: str

    @staticmethod
    def of(profile: bytes) -> Colour | None:
        """None for a profile that is sRGB, damaged, too large, or of a kind that browsers ignore, too."""
        if not 132 <= len(profile) <= MAX_PROFILE_BYTES or profile[36:40] != b"acsp":
            return None
        return _known_profile(_Profile(profile))

    def to_srgb(self, image: Image.Image) -> Image.Image:
        if image.mode == "L" and self.mode == "RGB":
            image = image.convert("RGB")
        if image.mode == self.mode:
            return _applied(self.transform, image)
        if image.mode == "RGBA" and self.with_alpha is not None:
            return _applied(self.with_alpha, image)
        return image


@dataclass(frozen=True, slots=True)
class CodedColour:
    """Colours by a transfer curve, which changes each channel by itself, and a table for what mixes channels."""

    curve: tuple[int, ...] | None
    table: ImageFilter.Color3DLUT | None

    @staticmethod
    def of_codes(primaries: int, transfer: int) -> Colour | None:
        """By the code points of H.273; None for those of sRGB and unknown ones."""
        return _coded(_PRIMARIES.get(primaries, _SRGB), transfer)

    @staticmethod
    def of_gamma(gamma: float, chromaticities: Chromaticities | None) -> Colour | None:
        """By PNG's gAMA, such as 0.45455, and cHRM. Browsers take a gamma of about 1 / 2.2 alone for sRGB's curve."""
        if gamma <= 0 or (chromaticities is None and abs(gamma * 2.2 - 1) < 0.05):
            return None
        return _by_gamma(gamma, chromaticities or _SRGB)

    def to_srgb(self, image: Image.Image) -> Image.Image:
        if image.mode == "L":
            image = image.convert("RGB")
        if image.mode not in ("RGB", "RGBA"):
            return image
        if self.curve is not None:
            image = image.point(self.curve * 3 + (tuple(range(256)) if image.mode == "RGBA" else ()))
        return image if self.table is None else image.filter(self.table)


class _Profile:
    """A profile as a key of the cache: compared by its digest, so that the cache holds no profiles."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._digest = hashlib.sha256(data).digest()

    def __hash__(self) -> int:
        return hash(self._digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Profile) and self._digest == other._digest


@lru_cache(maxsize=32)
def _known_profile(key: _Profile) -> Colour | None:
    profile, key.data = key.data, b""
    codes = _code_points(profile)
    if codes is not None:
        return CodedColour.of_codes(*codes)
    mode = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}.get(profile[16:20])
    if mode is None:
        return None
    try:
        found = ImageCms.ImageCmsProfile(BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(found, srgb, mode, "RGB")
        with_alpha = ImageCms.buildTransform(found, srgb, "RGBA", "RGBA") if mode == "RGB" else None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    colour = IccProfile(transform, with_alpha, mode)
    return None if mode == "RGB" and _changes_nothing(colour) else colour


def _code_points(profile: bytes) -> tuple[int, int] | None:
    """Of the tag `cicp` (ICC.1:2022, 9.2.17), which says more than the rest of such a profile: HDR."""
    count = min(int.from_bytes(profile[128:132], "big"), 100)
    for at in range(132, 132 + 12 * count, 12):
        if profile[at : at + 4] == b"cicp":
            start = int.from_bytes(profile[at + 4 : at + 8], "big")
            tag = profile[start : start + 12]
            if len(tag) == 12 and tag[:4] == b"cicp":
                return tag[8], tag[9]
    return None


def _changes_nothing(colour: IccProfile) -> bool:
    steps = np.arange(0, 256, 17, dtype=np.uint8)
    before = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(64, 64, 3)
    after = np.asarray(colour.to_srgb(Image.fromarray(before)))
    return int(np.abs(after.astype(int) - before).max()) <= _INVISIBLE


def _applied(transform: ImageCms.ImageCmsTransform, image: Image.Image) -> Image.Image:
    changed = ImageCms.applyTransform(image, transform)
    return image if changed is None else changed


@lru_cache(maxsize=64)
def _coded(primaries: Chromaticities, transfer: int) -> Colour | None:
    if transfer in (_PQ, _HLG):
        return CodedColour(None, _table(lambda colours: _from_hdr(colours, primaries, transfer)))
    return _with_curve(_CURVES.get(transfer), primaries)


@lru_cache(maxsize=64)
def _by_gamma(gamma: float, primaries: Chromaticities) -> Colour | None:
    return _with_curve(lambda encoded: encoded ** min(1 / gamma, 1e6), primaries)


def _with_curve(curve: Callable[[_Floats], _Floats] | None, primaries: Chromaticities) -> Colour | None:
    steps = None
    if curve is not None:
        light = curve(np.linspace(0, 1, 256))
        steps = tuple(int(step) for step in np.rint(255 * _encoded(light)))
    table = None
    if primaries != _SRGB:
        table = _table(lambda colours: _encoded(_light(colours) @ _to_srgb_primaries(primaries).T))
    return None if steps is None and table is None else CodedColour(steps, table)


def _table(change: Callable[[_Floats], _Floats]) -> ImageFilter.Color3DLUT:
    steps = np.linspace(0, 1, _GRID)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    colours = np.stack([red, green, blue], axis=-1).reshape(-1, 3)
    return ImageFilter.Color3DLUT(_GRID, change(colours).clip(0, 1).reshape(-1).tolist(), _copy_table=False)


def _encoded(light: _Floats) -> _Floats:
    """sRGB's curve (IEC 61966-2-1)."""
    light = light.clip(0, 1)
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _light(encoded: _Floats) -> _Floats:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def _smpte240(encoded: _Floats) -> _Floats:
    return np.where(encoded < 0.0913, encoded / 4, ((encoded + 0.1115) / 1.1115) ** (1 / 0.45))


_CURVES: Final[dict[int, Callable[[_Floats], _Floats]]] = {
    **dict.fromkeys((1, 6, 11, 14, 15), lambda encoded: encoded**2.4),  # BT.709: as its displays show it (BT.1886)
    4: lambda encoded: encoded**2.2,
    5: lambda encoded: encoded**2.8,
    7: _smpte240,
    8: lambda encoded: encoded,
    17: lambda encoded: encoded**2.6 * (52.37 / 48),
}
"""Of H.273, table 3; all others but PQ and HLG are taken for sRGB's."""


def _from_hdr(encoded: _Floats, primaries: Chromaticities, transfer: int) -> _Floats:
    light = _pq(encoded) if transfer == _PQ else _hlg(encoded)
    brightest = light.max(axis=-1, keepdims=True)
    curve = np.interp(brightest, (0.0, *_TONE_BEFORE), (0.0, *_TONE_AFTER))
    gain = np.divide(curve, brightest, out=np.full_like(brightest, _TONE_AFTER[0]), where=brightest > 0)
    return _encoded((light * gain) @ _to_srgb_primaries(primaries).T)


def _pq(encoded: _Floats) -> _Floats:
    """SMPTE ST 2084, relative to reference white."""
    power = encoded ** (1 / 78.84375)
    nits = 10_000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    return np.asarray(nits / _REFERENCE_WHITE)


def _hlg(encoded: _Floats) -> _Floats:
    """ITU-R BT.2100 with the system gamma of a display of 1000 candelas, relative to reference white."""
    scene = np.where(encoded <= 0.5, encoded**2 / 3, (np.exp((encoded - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
    return np.asarray(scene * luminance[..., np.newaxis] ** 0.2 * (_PEAK_WHITE / _REFERENCE_WHITE))


def _to_srgb_primaries(primaries: Chromaticities) -> _Floats:
    """The matrix from linear RGB of `primaries` to that of sRGB, with white adapted by Bradford's method."""
    white, d65 = _white(primaries), _white(_SRGB)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    adapt = np.linalg.inv(bradford) @ np.diag((bradford @ d65) / (bradford @ white)) @ bradford
    return np.asarray(np.linalg.inv(_to_xyz(_SRGB)) @ adapt @ _to_xyz(primaries))


def _to_xyz(primaries: Chromaticities) -> _Floats:
    columns = np.array([_xyz(primaries[at], primaries[at + 1]) for at in (2, 4, 6)]).T
    return np.asarray(columns * np.linalg.solve(columns, _white(primaries)))


def _white(primaries: Sequence[float]) -> _Floats:
    return _xyz(primaries[0], primaries[1])


def _xyz(x: float, y: float) -> _Floats:
    return np.array([x / y, 1.0, (1 - x - y) / y])
