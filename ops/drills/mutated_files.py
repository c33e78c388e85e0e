"""Image files of every format, and how the drill breaks them."""

import io
import random
import struct
import zlib
from typing import Any, Final

import numpy as np
import pillow_heif
import pylibjxl
from PIL import Image, ImageCms

_PNG_SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"


def originals(width: int = 480, height: int = 320) -> dict[str, bytes]:
    """One file of each format and kind. By default so large that it has several blocks, tiles or groups."""
    rng = np.random.default_rng(3)
    smooth = np.linspace(0, 255, width * height * 3).reshape(height, width, 3)
    frames = [Image.fromarray((smooth + rng.normal(0, 20, smooth.shape)).clip(0, 255).astype(np.uint8)) for _ in "abc"]
    exif = Image.Exif()
    exif[0x0112] = 6

    def pillow(name: str, moving: bool = False, palette: bool = False, **options: Any) -> bytes:
        buffer = io.BytesIO()
        if palette:
            frames[0].quantize(16).save(buffer, name, **options)
            return buffer.getvalue()
        more = {"save_all": True, "append_images": frames[1:]} if moving else {}
        frames[0].save(buffer, name, **more, **options)
        return buffer.getvalue()

    heif = io.BytesIO()
    pillow_heif.from_pillow(frames[0]).save(heif)
    pixels = np.asarray(frames[0])
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "jpeg": pillow("JPEG", exif=exif.tobytes()),
        "jpeg progressive": pillow("JPEG", progressive=True),
        "png": pillow("PNG", exif=exif.tobytes(), icc_profile=profile),
        "png of few colours": pillow("PNG", palette=True),
        "png animated": pillow("PNG", moving=True),
        "webp": pillow("WEBP"),
        "webp animated": pillow("WEBP", moving=True),
        "gif": pillow("GIF", moving=True),
        "bmp": pillow("BMP"),
        "tiff": pillow("TIFF"),
        "tiff packed": pillow("TIFF", compression="tiff_lzw"),
        "jpeg 2000": pillow("JPEG2000"),
        "avif": pillow("AVIF"),
        "avif animated": pillow("AVIF", moving=True),
        "heic": heif.getvalue(),
        "jpeg xl": pylibjxl.encode(pixels),
        "jpeg xl lossless": pylibjxl.encode(pixels, effort=3, lossless=True),
        "jpeg xl in boxes": pylibjxl.encode(pixels, exif=exif.tobytes(), xmp=b"<x:xmpmeta/>", icc=profile),
    }


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The file with some bytes changed, cut, doubled or set to extremes, as broken disks and hostile people do.

    Of a PNG mostly what its checksums guard, which then are right: a wrong one ends the decoder before it does much.
    """
    if data.startswith(_PNG_SIGNATURE) and rng.random() < 0.8:
        return _mutated_png(data, rng)
    return _broken(data, rng)


def _broken(data: bytes, rng: random.Random) -> bytes:
    content = bytearray(data)
    # Headers are short, and most that decoders get wrong is there.
    near = rng.choice((len(content), len(content), 64, 512))
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(min(near, len(content)))
        match rng.randrange(7):
            case 0:
                content[at] ^= 1 << rng.randrange(8)
            case 1:
                content[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                content[at : at + 4] = rng.choice(
                    (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\xff\xff")
                )
            case 3:
                del content[at : at + rng.randrange(1, 64)]
            case 4:
                content[at:at] = content[at : at + rng.randrange(1, 64)]
            case 5:
                content[at:at] = rng.randbytes(rng.randrange(1, 64))
            case _:
                del content[max(1, at) :]
        content = content or bytearray(b"\0")
    return bytes(content)


def _mutated_png(data: bytes, rng: random.Random) -> bytes:
    """Some chunks broken, doubled, moved or left out, all with the right checksum. Pixels are broken before or after
    they are packed."""
    chunks = _chunks(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(chunks))
        kind, content = chunks[at]
        match rng.randrange(8):
            case 0:
                del chunks[at]
            case 1:
                chunks.insert(rng.randrange(len(chunks)), chunks[at])
            case 2 | 3 | 4 if kind in (b"IDAT", b"fdAT"):
                start = 4 if kind == b"fdAT" else 0
                try:
                    raw = zlib.decompress(content[start:])
                except zlib.error:
                    continue
                chunks[at] = kind, content[:start] + zlib.compress(_broken(raw, rng))
            case _ if content:
                chunks[at] = kind, _broken(content, rng)
        if not chunks:
            break
    return _PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )


def _chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kinds and contents; the data of a picture that lies in several chunks in one."""
    found: list[tuple[bytes, bytes]] = []
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if found and kind == found[-1][0] == b"IDAT":
            found[-1] = kind, found[-1][1] + content
        else:
            found.append((kind, content))
        at += 12 + length
    return found
