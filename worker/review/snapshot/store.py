"""Snapshots in their topic: written, found and read again."""

import math
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from worker.intake.log import LogError, Output, Partition, TopicMissing
from worker.review.snapshot.form import (
    FORMAT,
    PIECE_BYTES,
    BrokenSnapshot,
    Piece,
    SnapshotManifest,
    StoredItem,
    decoded,
    encoded,
    pack,
    unpack,
)
from worker.review.topics import TopicBatch, Topics
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 0.1
MOST_WAITS: Final = 300
KEPT: Final = 2
"""Snapshots that are kept. Only what the older one of them holds is deleted from the other topics."""
UNFINISHED: Final = timedelta(hours=1)
"""How long an unfinished snapshot is left alone: another desk may be writing it."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A whole snapshot: its records are those with the key `name` at `partition` from `first` to `last`."""

    name: bytes
    partition: Partition
    first: int
    last: int
    manifest: SnapshotManifest
    positions: Mapping[Partition, int]

    @property
    def taken_at(self) -> datetime:
        return datetime.fromtimestamp(self.manifest.taken_at, UTC)

    def covers(self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> bool:
        """Whether reading can go on from this snapshot: no record behind it has been deleted, and it is of this log."""
        return all(self.positions.get(p, 0) >= start for p, start in starts.items()) and all(
            at <= ends.get(p, at) for p, at in self.positions.items()
        )


@dataclass(frozen=True, slots=True)
class Survey:
    """What stands in the snapshot topic: whole snapshots, the newest first, and how far each partition can be trimmed
    without harm to `kept` and to what another desk may be writing."""

    snapshots: Sequence[Snapshot]
    trimmable: Mapping[Partition, int]

    @property
    def kept(self) -> Sequence[Snapshot]:
        return self.snapshots[:KEPT]


@dataclass(slots=True)
class _Found:
    partition: Partition
    first: int
    pieces: int = 0
    last_at: float = 0.0
    is_torn: bool = False
    whole: Snapshot | None = None


@dataclass(slots=True)
class _Scan:
    found: dict[bytes, _Found] = field(default_factory=dict)

    def take(self, partition: Partition, offset: int, key: bytes | None, value: bytes | None, at: float) -> None:
        record = decoded(value)
        if key is None or record is None:
            return
        each = self.found.setdefault(key, _Found(partition, offset))
        each.last_at = max(each.last_at, at)
        if isinstance(record, SnapshotManifest) and record.format != FORMAT:
            each.last_at = math.inf  # a newer version's: it is never deleted
        elif isinstance(record, Piece):
            each.is_torn |= record.number != each.pieces or each.whole is not None
            each.pieces += 1
        elif record.pieces == each.pieces and not each.is_torn:
            each.whole = Snapshot(key, partition, each.first, offset, record, record.by_partition())


class SnapshotStore:
    """Used by one thread. All methods raise LogError."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        names = settings.topics
        self._topic = names.review_snapshot
        self._trimmed = (names.review, names.decisions)
        self._read_topics = (names.review, names.decisions, names.verdicts)
        self._piece_bytes = min(PIECE_BYTES, settings.max_message_bytes // 2)
        self._topics = topics

    def write(
        self, items: Iterator[list[StoredItem]], positions: Mapping[Partition, int], taken_at: datetime
    ) -> Iterator[None]:
        """Writes a snapshot, a little at a step; the last step makes it count."""
        name, pieces, count = uuid.uuid4().hex.encode(), 0, 0

        def counted() -> Iterator[list[StoredItem]]:
            nonlocal count
            for some in items:
                count += len(some)
                yield some

        for data in pack(counted(), self._piece_bytes):
            if data:
                self._topics.append([Output(self._topic, encoded(Piece(pieces, data)), name)])
                pieces += 1
            yield
        places = [(partition.topic, partition.number, offset) for partition, offset in positions.items()]
        manifest = SnapshotManifest(FORMAT, pieces, count, taken_at.timestamp(), places)
        self._topics.append([Output(self._topic, encoded(manifest), name)])

    def survey(self, now: datetime) -> Survey:
        """Reads the topic: the snapshots from which reading can go on. Empty when there is no such topic."""
        steps = self.survey_in_steps(now)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: Survey = end.value
                return found

    def survey_in_steps(self, now: datetime) -> Generator[None, None, Survey]:
        """As `survey`, a little at a step."""
        scan = _Scan()
        try:
            ends = self._topics.ends(self._topic)
            positions = self._topics.starts(self._topic)
        except TopicMissing as error:
            log.warning("no_snapshot_topic", reason=str(error))
            return Survey((), {})
        while any(positions[p] < end for p, end in ends.items()):
            batch = self._read(positions)
            for record in batch.records:
                at = record.timestamp_ms / 1000
                scan.take(record.partition, record.offset, record.key, record.value, at)
            positions = dict(batch.positions)
            yield
        starts = {p: at for topic in self._trimmed for p, at in self._topics.starts(topic).items()}
        present = {p: at for topic in self._read_topics for p, at in self._topics.ends(topic).items()}
        whole = [each.whole for each in scan.found.values() if each.whole and each.whole.covers(starts, present)]
        # Positions only rise: of two snapshots of one log, the newer one has no position below the other's.
        whole.sort(key=lambda each: (sum(each.positions.values()), each.manifest.taken_at), reverse=True)
        needed = {each.name for each in whole[:KEPT]}
        recent = (now - UNFINISHED).timestamp()
        trimmable = dict(ends)
        for name, each in scan.found.items():
            if name in needed or (each.whole is None and each.last_at >= recent):
                trimmable[each.partition] = min(trimmable[each.partition], each.first)
        return Survey(whole, trimmable)

    def trim(self, survey: Survey) -> None:
        """Deletes the snapshots that are no longer needed."""
        starts = self._topics.starts(self._topic)
        wanted = {p: offset for p, offset in survey.trimmable.items() if offset > starts.get(p, 0)}
        if wanted:
            self._topics.trim(wanted)

    def items(self, snapshot: Snapshot) -> Iterator[list[StoredItem]]:
        """The items of a snapshot. Raises BrokenSnapshot."""
        return unpack(self._pieces(snapshot))

    def _read(self, positions: Mapping[Partition, int]) -> TopicBatch:
        """Some records; there must be some."""
        for _ in range(MOST_WAITS):
            batch = self._topics.read(positions, WAIT_SECONDS)
            if batch.positions != positions:
                return batch
        raise LogError(f"the snapshots in {self._topic} could not be read within {MOST_WAITS * WAIT_SECONDS:.0f} s")

    def _pieces(self, snapshot: Snapshot) -> Iterator[bytes]:
        position, number = snapshot.first, 0
        while position <= snapshot.last:
            batch = self._read({snapshot.partition: position})
            for record in batch.records:
                piece = decoded(record.value)
                if record.key == snapshot.name and isinstance(piece, Piece):
                    if piece.number != number:
                        raise BrokenSnapshot(f"piece {number} is missing")
                    yield piece.data
                    number += 1
            position = batch.positions[snapshot.partition]
        if number < snapshot.manifest.pieces:
            raise BrokenSnapshot(f"it has {number} of {snapshot.manifest.pieces} pieces")
