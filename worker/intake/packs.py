"""Packs: many moved records in one record of a surplus topic.

A tenant may send a hundred thousand events at once, and all but a few of them move. To produce each as a record of its
own costs more than all else that is done with it. A pack holds up to MOST_RECORDS records, each with its value, key and
headers, so each keeps its own `sluice-deferred` header (worker.intake.deferral) and is read as if it stood alone.

A pack has the header HEADER. Its value is MessagePack: an array of [value, key or nil, [[header name, header value],
...]].
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec

from worker.intake.log import CommitFailed, Output, OutputsTooLarge, Record
from worker.intake.notifications import MalformedRecord, malformed

HEADER: Final = "sluice-pack"
"""It counts only on records of topics that nobody but Sluice writes."""
FORMAT: Final = b"1"
MOST_RECORDS: Final = 100
"""A pack's offset is committed when all its events are judged, so more would delay verdicts and repeat more work."""
MOST_BYTES: Final = 64 * 1024
"""Of values and keys. A larger record is moved by itself."""

_Headers: TypeAlias = tuple[tuple[str, bytes], ...]
_Packed: TypeAlias = tuple[bytes, bytes | None, _Headers]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Packed]).decode


@dataclass(frozen=True, slots=True)
class PackedOutputs:
    """Outputs as they are written, and where each was among those that were given."""

    outputs: Sequence[Output]
    positions: Sequence[int] | None
    """Of the outputs that are no packs, which come first; None where nothing was packed."""

    def unpacked_error(self, error: OutputsTooLarge) -> CommitFailed:
        """The error with the positions that the outputs had before. A pack cannot be shortened: where one is too large,
        somebody has to raise the limit of its topic."""
        positions = self.positions
        if positions is None:
            return error
        if max(error.limits) >= len(positions):
            return CommitFailed(error.message)
        return OutputsTooLarge(error.message, {positions[at]: limit for at, limit in error.limits.items()})


def pack(outputs: Sequence[Output], topics: Collection[str]) -> PackedOutputs:
    """Packs those of the outputs that go to `topics`. The others stay as they are, in their order, and come first."""
    moved: dict[str, list[Output]] = {}
    kept: list[Output] = []
    positions: list[int] = []
    for position, output in enumerate(outputs):
        if output.topic in topics and len(output.value) < MOST_BYTES:
            moved.setdefault(output.topic, []).append(output)
        else:
            kept.append(output)
            positions.append(position)
    if not moved:
        return PackedOutputs(outputs, None)
    for topic, of_topic in moved.items():
        kept += [_packed(topic, together) for together in _bounded(of_topic)]
    return PackedOutputs(kept, positions)


def record_count(record: Record) -> int:
    """How many moved records a record of a surplus topic holds."""
    try:
        return len(unpack(record))
    except MalformedRecord:
        return 1


def unpack(record: Record) -> list[Record]:
    """The records of a pack, each with the pack's partition, offset and time; a record that is no pack itself.

    Raises MalformedRecord where the value is not what `pack` writes.
    """
    if not any(name == HEADER for name, _ in record.headers):
        return [record]
    try:
        found = _decode(record.value or b"")
    except msgspec.MsgspecError as error:
        raise malformed(f"header {HEADER}: the value is not a pack of moved events: {error}") from None
    if not found:
        raise malformed(f"header {HEADER}: the pack holds no event")
    partition, offset, timestamp_ms = record.partition, record.offset, record.timestamp_ms
    return [Record(partition, offset, value, key, headers, timestamp_ms) for value, key, headers in found]


def _bounded(outputs: Sequence[Output]) -> Iterator[Sequence[Output]]:
    """Parts of at most MOST_RECORDS and MOST_BYTES."""
    start, size = 0, 0
    for at, output in enumerate(outputs):
        added = len(output.value) + len(output.key or b"")
        if at > start and (at - start == MOST_RECORDS or size + added > MOST_BYTES):
            yield outputs[start:at]
            start, size = at, 0
        size += added
    yield outputs[start:]


def _packed(topic: str, outputs: Sequence[Output]) -> Output:
    if len(outputs) == 1:
        return outputs[0]
    value = _encode([(output.value, output.key, output.headers) for output in outputs])
    return Output(topic, value, None, ((HEADER, FORMAT),))
