"""The log as a replay's worker sees it: a part of the past comes in, and verdicts go out into a topic of their own."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence, Set

from worker.intake.log import Gap, Lag, Log, Output, Partition, Poll, Record

QUIET_SECONDS = 1.0
RUN_HEADER = "sluice-replay"
"""Names the run that a verdict in the replay topic belongs to."""


class ReplayProgress:
    """How far a run is, and whether it is over. Safe for several threads."""

    def __init__(
        self,
        starts: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._quiet_since: dict[Partition, float] = {}
        self.missed = 0
        self._lock = threading.Lock()
        self._starts = starts
        self._ends = ends
        self._committed: dict[Partition, int] = {}
        self._delivered: dict[Partition, int] = {}
        self._read: set[Partition] = set()
        self._assigned: set[Partition] = set()

    def begin(self, committed: Mapping[Partition, int]) -> None:
        """What earlier runs have done."""
        with self._lock:
            self._committed.update(committed)

    def assigned(self, gained: Set[Partition], lost: Set[Partition]) -> None:
        with self._lock:
            self._assigned = (self._assigned | gained) - lost
            for partition in lost:
                self._delivered.pop(partition, None)
                self._quiet_since.pop(partition, None)
                self._read.discard(partition)

    def miss(self, gaps: Sequence[Gap]) -> None:
        """Counts what left the log before it could be judged again."""
        with self._lock:
            for gap in gaps:
                self.missed += max(0, min(gap.next, self._ends.get(gap.partition, 0)) - gap.first)

    def take(self, records: Sequence[Record]) -> list[Record]:
        """Those of the records that are in the window."""
        with self._lock:
            taken = []
            for record in records:
                if record.offset < self._ends.get(record.partition, 0):
                    self._delivered[record.partition] = record.offset
                    self._quiet_since.pop(record.partition, None)
                    taken.append(record)
                if record.offset >= self._ends.get(record.partition, 0) - 1:
                    self._read.add(record.partition)
            return taken

    def observe(self, lag: Lag) -> None:
        """Where nothing comes for a while, nor stands behind the read position, a partition is read, though its last
        offset holds no record (Kafka's transaction markers)."""
        now = self._clock()
        with self._lock:
            for partition, behind in lag.by_partition.items():
                if behind:
                    self._quiet_since.pop(partition, None)
                elif now - self._quiet_since.setdefault(partition, now) >= QUIET_SECONDS:
                    self._read.add(partition)

    def commit(self, offsets: Mapping[Partition, int]) -> None:
        with self._lock:
            self._committed.update(offsets)

    @property
    def read(self) -> frozenset[Partition]:
        """Partitions of which everything in the window has been read."""
        with self._lock:
            return frozenset(self._read)

    @property
    def done(self) -> int:
        """Offsets of the window that are judged and committed, over all partitions."""
        with self._lock:
            return sum(
                end - self._starts[partition]
                if self._is_done(partition)
                else min(self._committed.get(partition, 0), end) - self._starts[partition]
                for partition, end in self._ends.items()
                if self._committed.get(partition, 0) >= self._starts[partition]
            )

    @property
    def is_over(self) -> bool:
        """Every partition is this process's, was read to its end, and what was read is committed."""
        with self._lock:
            return all(self._is_done(partition) for partition in self._ends)

    def _is_done(self, partition: Partition) -> bool:
        committed = self._committed.get(partition, 0)
        if committed >= self._ends[partition] or self._ends[partition] <= self._starts[partition]:
            return True
        if partition not in self._assigned or partition not in self._read:
            return False
        return committed > self._delivered.get(partition, -1)


class ReplayLog:
    """Implements `worker.intake.log.Log` on another one, whose group is the run's own."""

    def __init__(self, log: Log, progress: ReplayProgress, *, run: str, verdicts: str, replays: str) -> None:
        self._log = log
        self._progress = progress
        self._header = ((RUN_HEADER, run.encode()),)
        self._verdicts = verdicts
        self._replays = replays
        self._paused: Set[Partition] = frozenset()

    def poll(self, timeout_seconds: float) -> Poll:
        poll = self._log.poll(timeout_seconds)
        self._progress.assigned(poll.assigned, poll.lost | poll.revoked)
        self._progress.miss(poll.gaps)
        taken = self._progress.take(poll.records)
        if not poll.records:
            self._progress.observe(self._log.lag())
        self._log.pause(self._paused | self._progress.read)
        return Poll(taken, poll.assigned, poll.revoked, poll.lost)

    def pause(self, partitions: Set[Partition]) -> None:
        self._paused = partitions
        self._log.pause(partitions | self._progress.read)

    def release(self, partitions: Set[Partition]) -> None:
        self._log.release(partitions)

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """Verdicts go into the replay topic; review items and dead letters go nowhere."""
        kept = [
            output._replace(topic=self._replays, headers=self._header)
            for output in outputs
            if output.topic == self._verdicts
        ]
        self._log.commit(kept, offsets)
        self._progress.commit(offsets)

    def health_problems(self) -> tuple[str, ...]:
        return self._log.health_problems()

    def notes(self) -> tuple[str, ...]:
        return self._log.notes()

    def lag(self) -> Lag:
        return self._log.lag()

    def close(self) -> None:
        self._log.close()
