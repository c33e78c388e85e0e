"""PNG and APNG (https://www.w3.org/TR/png-3/), whose chunks are read here and whose pixels are by Pillow.

Pillow gets a file of what makes the picture and nothing else: it unpacks texts and profiles as it meets them, and
refuses a file for a fault in what nobody sees.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from worker.images import exif
from worker.images.canvas import Blend, Disposal, Frame, FramePlace
from worker.images.colour import MAX_PROFILE_BYTES, CodedColour, Colour, IccProfile
from worker.images.completeness import load_whole
from worker.images.errors import bomb, truncated

CHUNKS: Final = 100_000
"""A PNG of 100 MiB, in chunks of 8 KiB as libpng writes them, has an eighth of it."""

_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"
_HEADER: Final = struct.Struct(">IIBBBBB")
_FRAME: Final = struct.Struct(">IIIIIHHBB")
_DISPOSALS: Final = (Disposal.KEEP, Disposal.CLEAR, Disposal.RESTORE)
_BLENDS: Final = (Blend.REPLACE, Blend.OVER)


@dataclass(slots=True)
class _AnimationFrame:
    place: FramePlace
    disposal: Disposal
    blend: Blend
    seconds: float
    data: list[memoryview] = field(default_factory=list)


@dataclass(slots=True)
class Png:
    """The chunks that make the picture."""

    header: bytes
    width: int
    height: int
    palette: bytes = b""
    transparency: bytes = b""
    data: list[memoryview] = field(default_factory=list)
    animation: list[_AnimationFrame] = field(default_factory=list)
    announced_frames: int = 0
    ancillary: dict[bytes, bytes] = field(default_factory=dict)
    """The first of each chunk that says something about colours or orientation."""

    @property
    def is_animated(self) -> bool:
        """Whether a browser shows frames and not the default image."""
        return self.announced_frames > 0

    @property
    def orientation(self) -> int:
        return exif.orientation(self.ancillary.get(b"eXIf", b""))

    @property
    def colour(self) -> Colour | None:
        """By the chunk that counts (11.3.2): cICP before iCCP before sRGB before gAMA."""
        codes = self.ancillary.get(b"cICP", b"")
        if len(codes) == 4 and codes[2] == 0:
            return CodedColour.of_codes(codes[0], codes[1])
        profile = _unpacked_profile(self.ancillary.get(b"iCCP", b""))
        if profile:
            return IccProfile.of(profile)
        gamma = self.ancillary.get(b"gAMA", b"")
        if b"sRGB" in self.ancillary or len(gamma) != 4:
            return None
        points = self.ancillary.get(b"cHRM", b"")
        chromaticities = struct.unpack(">8I", points) if len(points) == 32 else None
        if chromaticities is not None and not all(0 < value <= 100_000 for value in chromaticities[1::2]):
            chromaticities = None
        return CodedColour.of_gamma(
            int.from_bytes(gamma, "big") / 1e5,
            None if chromaticities is None else tuple(value / 1e5 for value in chromaticities),
        )

    def still(self) -> Image.Image:
        """The picture of a file that does not move. Raises ImageError where a part of it is missing."""
        return self._picture(self.width, self.height, self.data)

    def frames(self) -> Iterator[Frame]:
        """Those of an animation, to be put on a canvas one after the other. Raises as `still`."""
        if not self.animation:
            raise truncated("an animated PNG without a frame")
        for frame in self.animation:
            yield Frame(
                self._picture(frame.place.width, frame.place.height, frame.data),
                frame.place,
                frame.disposal,
                frame.blend,
                frame.seconds,
            )

    def _picture(self, width: int, height: int, data: Sequence[memoryview]) -> Image.Image:
        if not any(data):
            raise truncated("a PNG without the data of its picture")
        header = struct.pack(">II", width, height) + self.header[8:]
        parts: list[bytes | memoryview] = [_SIGNATURE, *_chunk(b"IHDR", [header])]
        for name, content in ((b"PLTE", self.palette), (b"tRNS", self.transparency)):
            if content:
                parts += _chunk(name, [content])
        file = b"".join([*parts, *_chunk(b"IDAT", data), *_chunk(b"IEND", [])])
        is_interlaced = bool(self.header[12])
        return load_whole(lambda: PngImageFile(BytesIO(file)), is_interlaced=is_interlaced, what="a PNG")


def read_png(data: bytes) -> Png:
    """Raises ImageError where there are too many chunks or a part is missing, ValueError where it is damaged."""
    found: Png | None = None
    for name, content, is_sound in _chunks(data):
        if found is None:
            if name != b"IHDR" or len(content) != _HEADER.size or not is_sound:
                raise ValueError("its header is damaged")
            width, height, *_ = _HEADER.unpack(content)
            found = Png(bytes(content), width, height)
            continue
        if name == b"IEND":
            break
        if name == b"IDAT":
            _check(name, is_sound)
            found.data.append(content)
            if found.animation:
                found.animation[0].data.append(content)
        elif name in (b"PLTE", b"tRNS"):
            _check(name, is_sound)
            if name == b"PLTE":
                found.palette = found.palette or bytes(content)
            else:
                found.transparency = found.transparency or bytes(content)
        elif is_sound:
            _note(found, name, content)
        elif not name[0] & 0x20:
            _check(name, is_sound)
    if found is None:
        raise truncated("a PNG that ends within its header")
    return found


def _check(name: bytes, is_sound: bool) -> None:
    if not is_sound:
        raise ValueError(f"the checksum of a chunk {name.decode('latin-1')} is wrong: the file was damaged on its way")


def _note(found: Png, name: bytes, content: memoryview) -> None:
    if name in (b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM", b"eXIf"):
        if not found.data:  # browsers have begun to show the picture by then
            found.ancillary.setdefault(name, bytes(content))
    elif name == b"acTL" and len(content) == 8 and not found.data:
        found.announced_frames = int.from_bytes(content[:4], "big")
    elif name == b"fcTL" and len(content) == _FRAME.size and found.announced_frames > len(found.animation):
        found.animation.append(_animation_frame(found, content))
    elif name == b"fdAT" and found.animation and len(content) > 4:
        found.animation[-1].data.append(content[4:])


def _animation_frame(found: Png, content: memoryview) -> _AnimationFrame:
    _, width, height, left, top, numerator, denominator, disposal, blend = _FRAME.unpack(content)
    if not width or not height or left + width > found.width or top + height > found.height:
        raise ValueError("a frame lies outside of the picture")
    if disposal >= len(_DISPOSALS) or blend >= len(_BLENDS):
        raise ValueError("a frame is combined in a way that PNG does not have")
    return _AnimationFrame(
        FramePlace(left, top, width, height), _DISPOSALS[disposal], _BLENDS[blend], numerator / (denominator or 100)
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview, bool]]:
    """Names and contents, and whether the checksums are right. A chunk that the file ends in is given as far as it
    goes: where that is too short for the picture, unpacking tells."""
    view = memoryview(data)
    at = len(_SIGNATURE)
    for _ in range(CHUNKS):
        if at + 8 > len(data):
            return
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = view[at + 8 : at + 8 + length]
        end = at + 8 + length
        checksum = data[end : end + 4]
        is_cut = len(checksum) < 4
        is_sound = is_cut or zlib.crc32(content, zlib.crc32(name)) == int.from_bytes(checksum, "big")
        if is_cut and name != b"IDAT" and name != b"fdAT":
            return
        yield name, content, is_sound
        at = end + 4
    raise bomb(f"a PNG of more than {CHUNKS} chunks")


def _chunk(name: bytes, content: Sequence[bytes | memoryview]) -> list[bytes | memoryview]:
    """The parts of a chunk; its content is not copied."""
    checksum = zlib.crc32(name)
    for part in content:
        checksum = zlib.crc32(part, checksum)
    return [struct.pack(">I4s", sum(map(len, content)), name), *content, struct.pack(">I", checksum)]


def _unpacked_profile(content: bytes) -> bytes:
    """Of a chunk iCCP: a name, a zero, the method 0, the packed profile. Empty where it is damaged or too large."""
    _, _, rest = content[:128].partition(b"\0")
    start = len(content[:128]) - len(rest) + 1
    if not rest or rest[0] != 0:
        return b""
    unpacker = zlib.decompressobj()
    try:
        profile = unpacker.decompress(content[start:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if unpacker.eof else b""
