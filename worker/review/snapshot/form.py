"""The records of a snapshot.

A snapshot is one zlib stream, cut into pieces of at most PIECE_BYTES, so that an item may be of any size. The stream
holds frames: four bytes of length (big-endian), and that many bytes of MessagePack, a list of items. A manifest ends
the snapshot; without it, the snapshot does not count. All records of a snapshot have its name as key, so they are in
one partition, in order.
"""

import zlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from worker.intake.log import Partition

FORMAT: Final = 1
"""A version that changes it must read the format before, too: snapshots hold what the topics do not have any more."""
PIECE_BYTES: Final = 512 * 1024
ITEMS_A_FRAME: Final = 2000
_COMPRESSION: Final = 1
"""The fastest of zlib's: about a third of the size."""
_MAX_FRAME: Final = 2**31


class BrokenSnapshot(Exception):
    """A snapshot cannot be read; the message says why."""


class StoredDecision(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A decision as JSON, and its place."""

    topic: str
    number: int
    offset: int
    written_at: float
    body: bytes


class StoredItem(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An item as JSON (see `compact`), its place, its cluster, its sketch while it waits, and its decisions."""

    item: bytes
    topic: str
    number: int
    offset: int
    placed_at: float
    cluster: str
    sketch: bytes | None
    decisions: list[StoredDecision]


class Piece(msgspec.Struct, array_like=True, tag=0, frozen=True, gc=False):
    number: int
    data: bytes


class SnapshotManifest(msgspec.Struct, array_like=True, tag=1, frozen=True, gc=False):
    """`positions` are topic, partition and the offset up to which records are in the snapshot. `taken_at` is in seconds
    since the epoch."""

    format: int
    pieces: int
    items: int
    taken_at: float
    positions: list[tuple[str, int, int]]

    def by_partition(self) -> dict[Partition, int]:
        return {Partition(topic, number): offset for topic, number, offset in self.positions}


_records: Final[msgspec.msgpack.Decoder[Piece | SnapshotManifest]] = msgspec.msgpack.Decoder(Piece | SnapshotManifest)
_frames: Final = msgspec.msgpack.Decoder(list[StoredItem])
_encoder: Final = msgspec.msgpack.Encoder()


def encoded(record: Piece | SnapshotManifest) -> bytes:
    return _encoder.encode(record)


def decoded(value: bytes | None) -> Piece | SnapshotManifest | None:
    """None for a record that is none of a snapshot's."""
    try:
        return _records.decode(value or b"")
    except msgspec.DecodeError:
        return None


def pack(items: Iterable[list[StoredItem]], piece_bytes: int) -> Iterator[bytes]:
    """The pieces of a snapshot of these items; an empty one for each list that fills none yet."""
    squeeze = zlib.compressobj(_COMPRESSION)
    waiting = bytearray()
    for some in items:
        frame = _encoder.encode(some)
        waiting += squeeze.compress(len(frame).to_bytes(4, "big") + frame)
        if len(waiting) < piece_bytes:
            yield b""
        while len(waiting) >= piece_bytes:
            yield bytes(waiting[:piece_bytes])
            del waiting[:piece_bytes]
    waiting += squeeze.flush()
    while waiting:
        yield bytes(waiting[:piece_bytes])
        del waiting[:piece_bytes]


def unpack(pieces: Iterable[bytes]) -> Iterator[list[StoredItem]]:
    """The items of a snapshot, frame by frame. Raises BrokenSnapshot."""
    stretch = zlib.decompressobj()
    waiting = bytearray()
    try:
        for piece in pieces:
            waiting += stretch.decompress(piece)
            while len(waiting) >= 4 and len(waiting) - 4 >= (size := int.from_bytes(waiting[:4], "big")):
                yield _frames.decode(waiting[4 : 4 + size])
                del waiting[: 4 + size]
    except (zlib.error, msgspec.DecodeError) as error:
        raise BrokenSnapshot(f"its items cannot be read: {error}") from error
    if not stretch.eof or waiting:
        raise BrokenSnapshot("it ends in the middle of an item")
