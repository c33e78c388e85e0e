"""Hostile files for the demo and tests."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

BOMB_SIDE = 20_000


def write_hostile_files(folder: Path, image: bytes) -> Mapping[str, Path]:
    """Writes a truncated JPEG (of `image`), a decompression bomb, and an HTML page named .jpg."""
    contents = {
        "cut-off.jpg": image[: len(image) // 2],
        "bomb.png": _bomb(),
        "not-an-image.jpg": b"<!doctype html><title>404</title>Not found",
    }
    paths = {name: folder / name for name in contents}
    for name, content in contents.items():
        paths[name].write_bytes(content)
    return paths


def _bomb() -> bytes:
    """A valid PNG of 49 KB that decodes to 400 million black pixels."""
    row = bytes(1 + BOMB_SIDE // 8)  # a filter byte, then one bit a pixel
    deflate = zlib.compressobj(9)
    rows = b"".join([*(deflate.compress(row * 100) for _ in range(BOMB_SIDE // 100)), deflate.flush()])
    header = struct.pack(">IIBBBBB", BOMB_SIDE, BOMB_SIDE, 1, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
