"""The embedded log: topics in one SQLite file, with Kafka's semantics for a group of one member.

A group has one reader at a time, the process that holds the group's `ReaderLock`. Another process of the same group
waits, and takes over when the first one has ended. For several workers at once there is Kafka.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from pathlib import Path
from typing import Final

import structlog

from worker.intake.log import CommitFailed, Fenced, Lag, LogError, Output, Partition, Poll, Record
from worker.intake.sqlite_disk import DiskFull
from worker.intake.sqlite_reader_lock import ReaderLock
from worker.intake.sqlite_topics import Appender, connect, explained, partition_ids, read_records, transaction

log = structlog.get_logger(__name__)

ASSIGN_SECONDS: Final = 1.0
"""How often a waiting process tries to become the reader, and the reader looks for new partitions."""
_POLL_SECONDS: Final = 0.01
_MAX_POLL_RECORDS: Final = 500
_MAX_POLL_BYTES: Final = 16 * 1024 * 1024


class SqliteLog:
    """The only member of a group; implements `worker.intake.log.Log`. The topics must exist (`SqliteTopics.create`).

    Its first poll assigns all partitions, or none while another process reads for the group; nothing is ever revoked.
    Records that every group has consumed are dropped, except the last `retain_records` of each partition; a topic that
    no group consumes is kept whole. On a full disk it waits, reports that as a health problem, and goes on once there
    is space.
    """

    def __init__(
        self,
        path: Path,
        *,
        topics: Sequence[str],
        group_id: str,
        retain_records: int = 1000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` dates records; `monotonic` says when to look for new partitions."""
        self._path = path
        self._topics = tuple(topics)
        self._group_id = group_id
        self._retain_records = retain_records
        self._monotonic = monotonic
        self._disk_full: DiskFull | None = None
        self._db = connect(path)
        self._commit_db = connect(path)
        self._appender = Appender(self._commit_db, clock)
        self._commit_lock = threading.Lock()
        self._reader_lock = ReaderLock(path, group_id)
        self._is_standby = False
        self._ids: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._paused: frozenset[Partition] = frozenset()
        self._assign_due = float("-inf")
        self._turn = 0

    def poll(self, timeout_seconds: float) -> Poll:
        deadline = time.monotonic() + timeout_seconds
        while True:
            with explained(self._path):
                if assigned := self._assign_when_due():
                    return Poll(assigned=assigned)
                if records := self._fetch():
                    return Poll(records=records)
            if (left := deadline - time.monotonic()) <= 0:
                return Poll()
            time.sleep(min(left, _POLL_SECONDS))

    def pause(self, partitions: Set[Partition]) -> None:
        self._paused = frozenset(partitions)

    def release(self, partitions: Set[Partition]) -> None:
        """Nothing is ever revoked."""

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        with self._commit_lock:
            if not self._reader_lock.held:
                raise Fenced(f"this process does not read for group {self._group_id!r}")
            try:
                with explained(self._path, outputs), transaction(self._commit_db):
                    self._require_progress(offsets)
                    self._appender.append(outputs)
                    self._write_offsets(offsets)
                    self._trim(offsets)
            except Fenced:
                raise
            except LogError as error:
                self._disk_full = error if isinstance(error, DiskFull) else None
                raise CommitFailed(str(error)) from error
            self._disk_full = None

    def health_problems(self) -> tuple[str, ...]:
        disk_full = self._disk_full
        return (str(disk_full),) if disk_full is not None else ()

    def notes(self) -> tuple[str, ...]:
        if not self._is_standby:
            return ()
        return (
            f"another process reads {self._path} for group {self._group_id}; this one waits to take over when that "
            "ends. For several workers at once use Kafka",
        )

    def lag(self) -> Lag:
        with explained(self._path):
            ends = dict(self._db.execute("SELECT id, next_offset FROM partitions"))
        return Lag(
            {partition: max(0, ends[self._ids[partition]] - at) for partition, at in self._positions.items()},
            {partition: ends[self._ids[partition]] for partition in self._positions},
            partitions=Counter(partition.topic for partition in self._ids),
        )

    def close(self) -> None:
        self._positions.clear()
        self._db.close()
        with self._commit_lock:
            self._commit_db.close()
            self._reader_lock.release()

    # assignment: the loop's thread

    def _assign_when_due(self) -> frozenset[Partition]:
        """The newly assigned partitions: all of them at first, later those that were added."""
        now = self._monotonic()
        if 0 <= now - self._assign_due < ASSIGN_SECONDS:
            return frozenset()
        self._assign_due = now
        ids = {partition: i for topic in self._topics for partition, i in partition_ids(self._db, topic).items()}
        if not self._acquire() or not (new := ids.keys() - self._positions.keys()):
            return frozenset()
        try:
            # explained here too, to distinguish a full disk from other errors
            with explained(self._path), transaction(self._db):
                self._begin_group([ids[partition] for partition in new])
        except DiskFull as error:
            if self._disk_full is None:
                log.warning("disk_full", error=str(error))
            self._disk_full = error
            return frozenset()
        self._ids = ids
        self._positions |= {partition: self._committed(ids[partition]) for partition in new}
        return frozenset(new)

    def _acquire(self) -> bool:
        was_standby, self._is_standby = self._is_standby, not self._reader_lock.try_acquire()
        if self._is_standby and not was_standby:
            log.warning("log_read_by_another_process", note=self.notes()[0])
        elif was_standby and not self._is_standby:
            log.info("log_taken_over", path=str(self._path), group=self._group_id)
        return not self._is_standby

    def _begin_group(self, row_ids: Sequence[int]) -> None:
        """A new group starts at the oldest record, and from now on nothing behind its offset may be trimmed."""
        self._db.executemany(
            "INSERT OR IGNORE INTO offsets (group_id, partition, next_offset)"
            " SELECT ?1, id, coalesce((SELECT min(offset) FROM records WHERE partition = id), next_offset)"
            " FROM partitions WHERE id = ?2",
            [(self._group_id, row_id) for row_id in row_ids],
        )

    def _committed(self, row_id: int) -> int:
        key = (self._group_id, row_id)
        (offset,) = self._db.execute(
            "SELECT next_offset FROM offsets WHERE group_id = ? AND partition = ?", key
        ).fetchone()
        return int(offset)

    # reading: the loop's thread

    def _fetch(self) -> list[Record]:
        readable = sorted(self._positions.keys() - self._paused)
        self._turn += 1  # a full partition must not starve the ones behind it
        turn = self._turn % max(1, len(readable))
        records: list[Record] = []
        size = 0
        for partition in readable[turn:] + readable[:turn]:
            found = read_records(
                self._db,
                partition,
                self._ids[partition],
                self._positions[partition],
                _MAX_POLL_RECORDS - len(records),
                _MAX_POLL_BYTES - size,
            )
            if found:
                self._positions[partition] = found[-1].offset + 1
                records += found
                size += sum(len(record.value or b"") for record in found)
            if len(records) >= _MAX_POLL_RECORDS or size >= _MAX_POLL_BYTES:
                break
        return records

    # committing: the committer's thread, inside its transaction

    def _require_progress(self, offsets: Mapping[Partition, int]) -> None:
        for partition, offset in offsets.items():
            row = self._commit_db.execute(
                "SELECT offsets.next_offset FROM offsets JOIN partitions ON partitions.id = offsets.partition"
                " WHERE group_id = ? AND topic = ? AND number = ?",
                (self._group_id, partition.topic, partition.number),
            ).fetchone()
            name = f"{partition.topic}-{partition.number} of group {self._group_id!r}"
            if row is None:
                raise Fenced(f"{name} was never assigned")
            if offset < row[0]:
                raise Fenced(f"{name} is committed up to {row[0]}; a commit of {offset} comes too late")

    def _write_offsets(self, offsets: Mapping[Partition, int]) -> None:
        self._commit_db.executemany(
            "INSERT OR REPLACE INTO offsets (group_id, partition, next_offset)"
            " SELECT ?, id, ? FROM partitions WHERE topic = ? AND number = ?",
            [(self._group_id, offset, partition.topic, partition.number) for partition, offset in offsets.items()],
        )

    def _trim(self, offsets: Mapping[Partition, int]) -> None:
        self._commit_db.executemany(
            "DELETE FROM records WHERE partition = (SELECT id FROM partitions WHERE topic = ?1 AND number = ?2)"
            " AND offset < (SELECT min(offsets.next_offset) FROM offsets JOIN partitions ON id = partition"
            " WHERE topic = ?1 AND number = ?2) - ?3",
            [(partition.topic, partition.number, self._retain_records) for partition in offsets],
        )
