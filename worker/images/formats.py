"""What kind of file the first bytes announce."""

from typing import Final

from worker.settings.image_format import ImageFormat

HEAD_BYTES: Final = 512
"""How much of a file `sniff` and `foreign_format` look at."""

_SIGNATURES: Final = (
    (b"\xff\xd8\xff", ImageFormat.JPEG),
    (b"\x89PNG\r\n\x1a\n", ImageFormat.PNG),
    (b"GIF87a", ImageFormat.GIF),
    (b"GIF89a", ImageFormat.GIF),
    (b"\xff\x0a", ImageFormat.JXL),
    (b"\0\0\0\x0cJXL \r\n\x87\n", ImageFormat.JXL),
    (b"II*\0", ImageFormat.TIFF),
    (b"MM\0*", ImageFormat.TIFF),
    (b"\xff\x4f\xff\x51", ImageFormat.JPEG2000),
    (b"\0\0\0\x0cjP  \r\n\x87\n", ImageFormat.JPEG2000),
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis"})
_HEIF_BRANDS: Final = frozenset({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1", b"mif2"})

_BMP_HEADERS: Final = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
"""Sizes of the header behind a BMP's file header. Two letters alone begin many texts."""

_FOREIGN: Final = (
    (b"8BPS", "Photoshop (PSD)"),
    (b"\0\0\1\0", "ICO icon"),
    (b"\0\0\2\0", "CUR cursor"),
    (b"II+\0", "BigTIFF"),
    (b"MM\0+", "BigTIFF"),
    (b"IIRO", "Olympus raw"),
    (b"IIU\0", "Panasonic raw"),
    (b"FUJIFILM", "Fujifilm raw"),
    (b"v/1\1", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"gimp xcf", "GIMP (XCF)"),
    (b"farbfeld", "farbfeld"),
    (b"\x8aMNG", "MNG"),
    (b"II\xbc\1", "JPEG XR"),
    (b"AT&TFORM", "DjVu"),
    (b"%!PS", "PostScript"),
)
"""Image formats that are recognised and not read."""


def sniff(head: bytes) -> ImageFormat | None:
    """The format that the first HEAD_BYTES announce; None where that is none of those that Sluice can read."""
    for signature, image_format in _SIGNATURES:
        if head.startswith(signature):
            return image_format
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return ImageFormat.WEBP
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return ImageFormat.BMP
    brands = _brands(head)
    if brands & _AVIF_BRANDS:
        return ImageFormat.AVIF
    if brands & _HEIF_BRANDS:
        return ImageFormat.HEIC
    return None


def foreign_format(head: bytes) -> str | None:
    """The name of an image format that Sluice does not read; None where the bytes announce no image that is known."""
    for signature, name in _FOREIGN:
        if head.startswith(signature):
            return name
    if b"crx " in _brands(head):
        return "Canon raw (CR3)"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text.startswith(b"<svg") or (text.startswith((b"<?xml", b"<!")) and b"<svg" in text):
        return "SVG"
    return None


def _brands(head: bytes) -> set[bytes]:
    """Those of the file type box (ISO/IEC 14496-12, 4.3)."""
    if head[4:8] != b"ftyp":
        return set()
    listed = head[8 : min(int.from_bytes(head[:4], "big"), 256)]
    return {listed[at : at + 4] for at in range(0, len(listed), 4) if at != 4}  # at 4: the minor version
