"""GIF (https://www.w3.org/Graphics/GIF/spec-gif89a.txt), whose blocks are read here and whose pixels are by Pillow.

Pillow fills what a frame leaves free with a colour of the palette; browsers leave it transparent. So each frame goes to
Pillow as a file of its own, and is put on the canvas here.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL.GifImagePlugin import GifImageFile

from worker.images.canvas import Blend, Disposal, Frame, FramePlace
from worker.images.completeness import load_whole
from worker.images.errors import bomb, truncated

BLOCKS: Final = 100_000
"""Extensions and stray bytes."""
DATA_BLOCKS: Final = 1_000_000
"""Of pixels and extensions together. Whole ones have 255 bytes: honest files of 128 MiB have half as many."""

_SCREEN: Final = struct.Struct("<HHBBB")
_IMAGE: Final = struct.Struct("<HHHHB")
_HAS_TABLE, _INTERLACED, _HAS_TRANSPARENT = 0x80, 0x40, 1
_DISPOSALS: Final = {2: Disposal.CLEAR, 3: Disposal.RESTORE}


@dataclass(frozen=True, slots=True)
class GifFrame:
    """A frame, still packed."""

    place: FramePlace
    disposal: Disposal
    seconds: float
    is_interlaced: bool
    transparent: int | None
    table: bytes
    data: bytes

    def open(self) -> Frame:
        """Raises ImageError where a part of the frame is missing, else whatever its decoder raises."""
        place = self.place
        size = max(1, (len(self.table) // 3 - 1).bit_length())
        flags = _HAS_TABLE | (size - 1) if self.table else 0
        screen = _SCREEN.pack(place.width, place.height, flags, 0, 0)
        header = b"," + _IMAGE.pack(0, 0, place.width, place.height, _INTERLACED if self.is_interlaced else 0)
        file = b"GIF89a" + screen + self.table + header + self.data + b";"
        image = load_whole(lambda: GifImageFile(BytesIO(file)), is_interlaced=self.is_interlaced, what="a GIF")
        if self.transparent is not None:
            image.info["transparency"] = self.transparent
        return Frame(image, place, self.disposal, Blend.OVER, self.seconds)


@dataclass(frozen=True, slots=True)
class Gif:
    """The blocks of a file."""

    width: int
    height: int
    frames: tuple[GifFrame, ...]


def read_gif(data: bytes, most_frames: int | None = None) -> Gif:
    """All frames, or so many. Raises ImageError where there are too many blocks, or not even a first frame."""
    if len(data) < 6 + _SCREEN.size:
        raise truncated("a GIF that ends within its header")
    width, height, flags, _, _ = _SCREEN.unpack_from(data, 6)
    reader = _Reader(data, 6 + _SCREEN.size)
    table = reader.table(flags)
    frames = []
    for frame in reader.frames(table):
        frames.append(frame)
        if len(frames) == 1:
            # A first frame that is larger than its screen makes the screen larger.
            width = max(width, frame.place.left + frame.place.width)
            height = max(height, frame.place.top + frame.place.height)
        if len(frames) == most_frames:
            break
    if not frames:
        raise truncated("a GIF without a picture")
    return Gif(width, height, tuple(frames))


class _Reader:
    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self._data_blocks = 0

    def table(self, flags: int) -> bytes:
        size = 3 << (flags & 7) + 1 if flags & _HAS_TABLE else 0
        self._at += size
        return self._data[self._at - size : self._at]

    def frames(self, global_table: bytes) -> Iterator[GifFrame]:
        control = bytes(4)
        for _ in range(BLOCKS):
            kind = self._data[self._at : self._at + 1]
            self._at += 1
            if kind in (b"", b";"):
                return
            if kind == b"!":
                label = self._data[self._at : self._at + 1]
                self._at += 1
                content = self._blocks()
                if label == b"\xf9" and len(content) >= 5:
                    control = content[1:5]
            elif kind == b",":
                if self._at + _IMAGE.size > len(self._data):
                    return
                yield self._frame(control, global_table)
                control = bytes(4)
        raise bomb(f"a GIF of more than {BLOCKS} blocks")

    def _frame(self, control: bytes, global_table: bytes) -> GifFrame:
        left, top, width, height, flags = _IMAGE.unpack_from(self._data, self._at)
        self._at += _IMAGE.size
        table = self.table(flags) or global_table
        code_size = self._data[self._at : self._at + 1]
        self._at += 1
        return GifFrame(
            FramePlace(left, top, width, height),
            _DISPOSALS.get(control[0] >> 2 & 7, Disposal.KEEP),
            int.from_bytes(control[1:3], "little") / 100,
            bool(flags & _INTERLACED),
            control[3] if control[0] & _HAS_TRANSPARENT else None,
            table,
            code_size + self._blocks(),
        )

    def _blocks(self) -> bytes:
        """The data blocks from here on, with their lengths and the empty one that ends them."""
        data, start = self._data, self._at
        at = start
        while at < len(data) and data[at]:
            at += data[at] + 1
            self._data_blocks += 1
            if self._data_blocks > DATA_BLOCKS:
                raise bomb(f"a GIF of more than {DATA_BLOCKS} data blocks")
        self._at = at + 1
        return data[start : self._at]
