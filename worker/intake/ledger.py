"""The offset ledger: which records are done, and how far the group's offsets may move. Pure, no IO."""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, NamedTuple, TypeVar

from worker.intake.log import Partition

T = TypeVar("T")


class Ticket(NamedTuple):
    """Names one received record. It is void once its partition was dropped: the epoch no longer fits."""

    partition: Partition
    epoch: int
    offset: int


@dataclass(frozen=True, slots=True)
class Batch(Generic[T]):
    """What may be committed now: the outputs of contiguous finished records, and the frontiers behind them."""

    outputs: tuple[T, ...]
    offsets: Mapping[Partition, int]
    epochs: Mapping[Partition, int]
    records: int


@dataclass(slots=True)
class _Entry(Generic[T]):
    offset: int
    size: int
    timestamp_ms: int
    outputs: tuple[T, ...] | None = None
    """None while the record is unfinished."""
    is_moved: bool = False
    """Finished by moving its events to another topic."""


@dataclass(slots=True)
class _Lane(Generic[T]):
    """One assigned partition: its records in the order received, from the committed offset on."""

    epoch: int
    entries: deque[_Entry[T]] = field(default_factory=deque)
    by_offset: dict[int, _Entry[T]] = field(default_factory=dict)
    moved: int = 0


class OffsetLedger(Generic[T]):
    """Keeps, for each assigned partition, the records received and not yet committed.

    Guarantees: `take` never goes past an unfinished record, `settle` forgets only what was taken, and a completion from
    before a partition was dropped counts for nothing. Offsets are those that were received, never a range: compaction
    and transaction markers leave gaps. Outputs are kept until `settle`, so a failed commit costs no work.
    """

    def __init__(self) -> None:
        self._lanes: dict[Partition, _Lane[T]] = {}
        self._epoch = 0
        self._held = 0
        self._held_bytes = 0
        self._moved = 0

    @property
    def held_bytes(self) -> int:
        """The sizes of the records held, or of their outputs once they are finished."""
        return self._held_bytes

    @property
    def held(self) -> int:
        """Records received and not yet committed, over all partitions."""
        return self._held

    @property
    def moved(self) -> int:
        """Records among those held that were finished by moving their events to another topic."""
        return self._moved

    def partitions(self) -> frozenset[Partition]:
        return frozenset(self._lanes)

    def held_in(self, partition: Partition) -> int:
        """Records of a partition received and not yet committed; 0 for one that is not assigned."""
        lane = self._lanes.get(partition)
        return len(lane.entries) if lane else 0

    def moved_in(self, partition: Partition) -> int:
        """As `moved`, of one partition."""
        lane = self._lanes.get(partition)
        return lane.moved if lane else 0

    def oldest_in(self, partition: Partition) -> Ticket | None:
        """The first record of a partition received and not yet committed, finished or not."""
        lane = self._lanes.get(partition)
        return Ticket(partition, lane.epoch, lane.entries[0].offset) if lane and lane.entries else None

    def oldest_timestamp_ms(self) -> int | None:
        """The time in the log of the oldest record that was received and not yet committed."""
        times = (lane.entries[0].timestamp_ms for lane in self._lanes.values() if lane.entries)
        return min((time for time in times if time > 0), default=None)

    def assign(self, partitions: Iterable[Partition]) -> None:
        """Starts each partition afresh, under a new epoch."""
        for partition in partitions:
            self.drop([partition])
            self._epoch += 1
            self._lanes[partition] = _Lane(self._epoch)

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forgets partitions that were revoked or lost; their open tickets become void."""
        for partition in partitions:
            lane = self._lanes.pop(partition, None)
            if lane is not None:
                self._held -= len(lane.entries)
                self._moved -= lane.moved
                self._held_bytes -= sum(entry.size for entry in lane.entries)

    def receive(self, partition: Partition, offset: int, size: int = 0, timestamp_ms: int = 0) -> Ticket:
        """Opens a record of `size` bytes; `timestamp_ms` is its time in the log, 0 where it has none.

        Raises ValueError for a partition that is not assigned, or an offset that does not lie behind all received
        before it.
        """
        lane = self._lanes.get(partition)
        if lane is None:
            raise ValueError(f"{partition} is not assigned, yet it brought offset {offset}")
        if lane.entries and offset <= lane.entries[-1].offset:
            raise ValueError(f"{partition}: offset {offset} came after {lane.entries[-1].offset}")
        entry: _Entry[T] = _Entry(offset, size, timestamp_ms)
        lane.entries.append(entry)
        lane.by_offset[offset] = entry
        self._held += 1
        self._held_bytes += size
        return Ticket(partition, lane.epoch, offset)

    def is_current(self, ticket: Ticket) -> bool:
        """Whether the record is still ours to finish."""
        lane = self._lanes.get(ticket.partition)
        return lane is not None and lane.epoch == ticket.epoch and ticket.offset in lane.by_offset

    def finish(self, ticket: Ticket, outputs: tuple[T, ...], size: int = 0, *, is_moved: bool = False) -> bool:
        """Closes a record with its outputs of `size` bytes; `is_moved`: they are its events, for another topic.

        False, and no effect, when the ticket is void or was finished before.
        """
        lane = self._lanes.get(ticket.partition)
        if lane is None or lane.epoch != ticket.epoch:
            return False
        entry = lane.by_offset.get(ticket.offset)
        if entry is None or entry.outputs is not None:
            return False
        entry.outputs = outputs
        self._held_bytes += size - entry.size
        entry.size = size
        if is_moved:
            entry.is_moved = True
            lane.moved += 1
            self._moved += 1
        return True

    def take(self, max_records: int | None = None) -> Batch[T] | None:
        """The finished records at the head of each partition, at most `max_records` of them; None when there are none.

        Starts with the partition that was settled longest ago, so that none starves while commits are slow: each other
        partition is settled at most once before it. Taking twice without a `settle` between gives the same records
        again (and perhaps more).
        """
        outputs: list[T] = []
        offsets: dict[Partition, int] = {}
        epochs: dict[Partition, int] = {}
        records = 0
        for partition, lane in self._lanes.items():
            for entry in lane.entries:
                if entry.outputs is None or records == max_records:
                    break
                outputs.extend(entry.outputs)
                offsets[partition] = entry.offset + 1
                epochs[partition] = lane.epoch
                records += 1
        return Batch(tuple(outputs), offsets, epochs, records) if records else None

    def replace_outputs(self, batch: Batch[T], replacements: Mapping[int, T]) -> None:
        """Puts others in the place of some outputs that `take` gave, by their positions in `batch.outputs`."""
        others = {id(batch.outputs[position]): output for position, output in replacements.items()}
        for partition, frontier in batch.offsets.items():
            lane = self._lanes.get(partition)
            if lane is None or lane.epoch != batch.epochs[partition]:
                continue
            for entry in lane.entries:
                if entry.outputs is None or entry.offset >= frontier:
                    break
                entry.outputs = tuple(others.get(id(output), output) for output in entry.outputs)

    def settle(self, batch: Batch[T]) -> None:
        """Forgets what a successful commit covered; its partitions are the last that `take` looks at next."""
        for partition, frontier in batch.offsets.items():
            lane = self._lanes.get(partition)
            if lane is None or lane.epoch != batch.epochs[partition]:
                continue
            while lane.entries and lane.entries[0].offset < frontier:
                entry = lane.entries.popleft()
                del lane.by_offset[entry.offset]
                self._held -= 1
                self._held_bytes -= entry.size
                if entry.is_moved:
                    lane.moved -= 1
                    self._moved -= 1
            self._lanes[partition] = self._lanes.pop(partition)
