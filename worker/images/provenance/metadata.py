"""Finds what a file says beside its picture: texts, Exif, XMP and C2PA manifests. Decodes no pixels, verifies
nothing, and calls no library but zlib.

Only what is asked for is copied or unpacked, each piece up to a limit, so that a hostile file costs as much as an
honest one.
"""

import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from worker.images import exif
from worker.images.boxes import boxes
from worker.images.provenance.heif_items import BOXES, read_items
from worker.settings.image_format import ImageFormat

TEXT_BYTES: Final = 1024 * 1024
"""Of a text, an Exif block or an XMP packet at most, unpacked; more is cut."""
PIECES: Final = 100_000
"""Chunks, segments or boxes that are looked at; as many as the decoders take (png.py, webp.py)."""

_PNG_TEXTS: Final = frozenset(
    {"parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "Dream", "Description", "Software"}
)
_PNG_XMP: Final = "XML:com.adobe.xmp"
_KEYWORD_BYTES: Final = 80
_JPEG_EXIF, _JPEG_XMP = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
_C2PA_UUID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_C2PA_GIF: Final = b"!\xff\x0bC2PA_GIF\x01\0\0"
_GIF_HEAD_BYTES: Final = 64 * 1024

_EXIF_TEXTS: Final = {270: "ImageDescription", 271: "Make", 272: "Model", 305: "Software"}
_EXIF_DIRECTORY, _USER_COMMENT, _XMP_TAG, _C2PA_TAG = 34665, 37510, 700, 52545


@dataclass(slots=True)
class Metadata:
    """`texts` by their names in the file. `exif` begins with the TIFF header. `manifest_bytes`: of C2PA manifests."""

    texts: dict[str, str] = field(default_factory=dict)
    exif: bytes = b""
    xmp: bytes = b""
    manifest_bytes: int = 0
    seen: set[str] = field(default_factory=set)
    """Keywords of PNG chunks; of each only the first is unpacked, also where that fails."""


def read_metadata(data: bytes, image_format: ImageFormat) -> Metadata:
    """What a file of this format says. Raises nothing: what is damaged is left out."""
    found = Metadata()
    reader = _READERS.get(image_format)
    if reader is not None:
        reader(data, found)
        _read_exif(found)
    return found


def _read_png(data: bytes, found: Metadata) -> None:
    view = memoryview(data)
    at = 8
    for _ in range(PIECES):
        if at + 8 > len(data):
            return
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        content = view[at + 8 : at + 8 + length]
        if name in (b"tEXt", b"zTXt", b"iTXt"):
            _note_png_text(name, content, found)
        elif name == b"eXIf":
            found.exif = found.exif or bytes(content[:TEXT_BYTES])
        elif name == b"caBX":
            found.manifest_bytes += len(content)
        at += length + 12


def _note_png_text(name: bytes, content: memoryview, found: Metadata) -> None:
    head = bytes(content[:_KEYWORD_BYTES])
    end = head.find(b"\0")
    keyword = head[: max(end, 0)].decode("latin-1")
    if keyword in found.seen or (keyword not in _PNG_TEXTS and keyword != _PNG_XMP):
        return
    found.seen.add(keyword)
    text = _png_text(name, content[end + 1 :])
    if keyword == _PNG_XMP:
        found.xmp = text
    else:
        # Some tools write UTF-8 into tEXt, which is Latin-1 by the standard; what is no UTF-8 is Latin-1.
        found.texts[keyword] = _utf8(text) if name == b"iTXt" else _utf8_or_latin1(text)


def _png_text(name: bytes, content: memoryview) -> bytes:
    """Of a chunk's content behind the keyword (PNG 11.3.3); empty where it is damaged."""
    if name == b"tEXt":
        return bytes(content[:TEXT_BYTES])
    if name == b"zTXt":
        return _unpacked(content[1:])
    is_packed = bytes(content[:1]) == b"\x01"
    head = bytes(content[2:1024])  # language and translated keyword, each ended by a zero
    start = head.find(b"\0", head.find(b"\0") + 1)
    if start < 0:
        return b""
    text = content[2 + start + 1 :]
    return _unpacked(text) if is_packed else bytes(text[:TEXT_BYTES])


def _unpacked(content: memoryview) -> bytes:
    try:
        return zlib.decompressobj().decompress(content[:TEXT_BYTES], TEXT_BYTES)
    except zlib.error:
        return b""


def _read_jpeg(data: bytes, found: Metadata) -> None:
    at = 2
    for _ in range(PIECES):
        if data[at : at + 1] != b"\xff":
            return
        kind = data[at + 1 : at + 2]
        if kind == b"\xff":  # fill
            at += 1
            continue
        if kind in (b"\xda", b"\xd9", b""):
            return
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : at + 2 + length]
        if kind == b"\xe1" and content.startswith(_JPEG_EXIF):
            found.exif = found.exif or content[len(_JPEG_EXIF) :]
        elif kind == b"\xe1" and content.startswith(_JPEG_XMP):
            found.xmp = found.xmp or content[len(_JPEG_XMP) :]
        elif kind == b"\xeb" and content.startswith(b"JP") and (found.manifest_bytes or b"c2pa" in content[:64]):
            found.manifest_bytes += len(content)
        at += 2 + max(length, 2)


def _read_webp(data: bytes, found: Metadata) -> None:
    at = 12
    for _ in range(PIECES):
        if at + 8 > len(data):
            return
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name == b"EXIF":
            block = data[at + 8 : at + 8 + min(size, TEXT_BYTES)]
            found.exif = found.exif or block.removeprefix(_JPEG_EXIF)
        elif name == b"XMP ":
            found.xmp = found.xmp or data[at + 8 : at + 8 + min(size, TEXT_BYTES)]
        elif name == b"C2PA":
            found.manifest_bytes += size
        at += 8 + size + size % 2


def _read_gif(data: bytes, found: Metadata) -> None:
    """A manifest stands before the pictures; how long it is shows only when it is unpacked."""
    if data.find(_C2PA_GIF, 0, _GIF_HEAD_BYTES) >= 0:
        found.manifest_bytes = len(data)


def _read_heif(data: bytes, found: Metadata) -> None:
    _note_boxes(data, found)
    with suppress(ValueError):
        block, packet = read_items(data, TEXT_BYTES)
        found.exif = found.exif or block.removeprefix(_JPEG_EXIF)
        found.xmp = found.xmp or packet


def _read_jxl(data: bytes, found: Metadata) -> None:
    _note_boxes(data, found)


def _read_tiff(data: bytes, found: Metadata) -> None:
    found.exif = data
    tags = exif.tags(data, (_XMP_TAG, _C2PA_TAG), TEXT_BYTES)
    found.xmp = tags.get(_XMP_TAG, b"")
    found.manifest_bytes = len(data) if _C2PA_TAG in tags else 0


def _note_boxes(data: bytes, found: Metadata) -> None:
    """The boxes of the file itself (ISO/IEC 14496-12, 4.2), of JPEG XL's container too (18181-2)."""
    for kind, start, end, _ in islice(boxes(data), BOXES):
        if kind == b"jumb" or (kind == b"uuid" and data[start : start + 16] == _C2PA_UUID):
            found.manifest_bytes += end - start
        elif kind == b"Exif":
            offset = 4 + int.from_bytes(data[start : start + 4], "big")
            found.exif = found.exif or data[start + offset : min(end, start + offset + TEXT_BYTES)]
        elif kind == b"xml ":
            found.xmp = found.xmp or data[start : min(end, start + TEXT_BYTES)]


def _read_exif(found: Metadata) -> None:
    if not found.exif:
        return
    for tag, value in exif.tags(found.exif, _EXIF_TEXTS, TEXT_BYTES).items():
        found.texts.setdefault(_EXIF_TEXTS[tag], _utf8(value.rstrip(b"\0")))
    comment = exif.tags(found.exif, (_USER_COMMENT,), TEXT_BYTES, below=_EXIF_DIRECTORY).get(_USER_COMMENT)
    if comment:
        found.texts.setdefault("UserComment", _user_comment(comment))


def _user_comment(value: bytes) -> str:
    """Eight bytes name the character set (Exif 2.32, 4.6.5). Writers differ in the byte order of what is called
    UNICODE: in a text with Latin letters, zeros stand in the more significant bytes."""
    code, text = value[:8], value[8:]
    if code != b"UNICODE\0":
        return _utf8(text.rstrip(b"\0"))
    zeros_first, zeros_second = text[0:2048:2].count(0), text[1:2048:2].count(0)
    return text.decode("utf-16-be" if zeros_first >= zeros_second else "utf-16-le", errors="replace")


def _utf8(text: bytes) -> str:
    return text.decode("utf-8", errors="replace")


def _utf8_or_latin1(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


_READERS: Final[Mapping[ImageFormat, Callable[[bytes, Metadata], None]]] = {
    ImageFormat.PNG: _read_png,
    ImageFormat.JPEG: _read_jpeg,
    ImageFormat.WEBP: _read_webp,
    ImageFormat.GIF: _read_gif,
    ImageFormat.AVIF: _read_heif,
    ImageFormat.HEIC: _read_heif,
    ImageFormat.JXL: _read_jxl,
    ImageFormat.TIFF: _read_tiff,
}
