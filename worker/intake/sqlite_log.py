"""The embedded log: a group member over topics in one SQLite file, with Kafka's semantics.

The members of a group divide a topic's partitions among themselves, also across processes. There is no coordinator.
Each member, in one transaction, sends a heartbeat, removes dead members, revokes the partitions beyond its share and
claims free ones. A partition has at most one claim, and a commit checks its claims in its own transaction: a member
that was removed by mistake cannot commit.
"""

import json
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import structlog

from worker.intake.log import CommitFailed, Fenced, Lag, LogError, Output, Partition, Poll, Record
from worker.intake.sqlite_disk import DiskFull
from worker.intake.sqlite_peers import PeerWatch, new_member
from worker.intake.sqlite_topics import Appender, connect, explained, partition_ids, read_records, transaction

log = structlog.get_logger(__name__)

REMIND_SECONDS = 60.0
_POLL_SECONDS = 0.01
_MAX_POLL_RECORDS = 500
_MAX_POLL_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Change:
    """What one round of the group's protocol means for this member."""

    generation: int
    claimed: tuple[int, ...] = ()
    revoked: tuple[int, ...] = ()


class SqliteLog:
    """One member of a group; implements `worker.intake.log.Log`. The topics must exist (`SqliteTopics.create`).

    It joins at its first poll, and each poll shows that it lives. One that has not polled for `session_seconds` loses
    its partitions once another member has watched it for so long; one whose process has ended loses them at once.
    Records that every group has consumed are dropped, except the last `retain_records` of each partition; a topic that
    no group consumes is kept whole. On a full disk it waits, says so, and goes on once there is room.
    """

    def __init__(
        self,
        path: Path,
        *,
        topics: Sequence[str],
        group_id: str,
        session_seconds: float = 5.0,
        retain_records: int = 1000,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`clock` dates records; `monotonic` tells who is dead, and need not agree with that of other processes."""
        self._path = path
        self._topics = tuple(topics)
        self._group_id = group_id
        self._session_seconds = session_seconds
        self._retain_records = retain_records
        self._monotonic = monotonic
        self._peers = PeerWatch(session_seconds)
        self._beats = 0
        self._disk_full: DiskFull | None = None
        self._logged_at = float("-inf")
        # the loop's heartbeats need not wait for the disk; the committer's connection, with FULL, flushes them along
        self._db = connect(path, synchronous="NORMAL")
        self._commit_db = connect(path, synchronous="FULL")
        self._appender = Appender(self._commit_db, clock)
        self._commit_lock = threading.Lock()
        self._member: str | None = None
        self._ids: dict[Partition, int] = {}
        self._positions: dict[Partition, int] = {}
        self._revoked: set[Partition] = set()
        self._paused: frozenset[Partition] = frozenset()
        self._generation = -1
        self._synced_at = float("-inf")
        self._turn = 0

    def poll(self, timeout_seconds: float) -> Poll:
        deadline = time.monotonic() + timeout_seconds
        while True:
            if self._sync_is_due() and (change := self._sync_unless_disk_full()):
                return change
            with explained(self._path):
                if records := self._fetch():
                    return Poll(records=records)
            if (left := deadline - time.monotonic()) <= 0:
                return Poll()
            time.sleep(min(left, _POLL_SECONDS))

    def pause(self, partitions: Set[Partition]) -> None:
        self._paused = frozenset(partitions)

    def release(self, partitions: Set[Partition]) -> None:
        if not partitions & self._revoked:
            return
        with explained(self._path), transaction(self._db):
            self._db.executemany(
                "DELETE FROM claims WHERE group_id = ? AND partition = ? AND member = ?",
                [(self._group_id, self._ids[partition], self._member) for partition in partitions & self._revoked],
            )
            self._next_generation()
        self._revoked -= partitions

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        member = self._member
        with self._commit_lock:
            try:
                with explained(self._path, outputs), transaction(self._commit_db):
                    self._check_claims(member, offsets)
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
        no_room = self._disk_full
        return (str(no_room),) if no_room is not None else ()

    def notes(self) -> tuple[str, ...]:
        return ()

    def lag(self) -> Lag:
        with explained(self._path):
            ends = dict(self._db.execute("SELECT id, next_offset FROM partitions"))
        return Lag(
            {partition: ends[self._ids[partition]] - at for partition, at in self._positions.items()},
            {partition: ends[self._ids[partition]] for partition in self._positions},
            partitions=Counter(partition.topic for partition in self._ids),
        )

    def close(self) -> None:
        try:
            if self._member is not None:
                with explained(self._path), transaction(self._db):
                    self._remove_member(self._member)
                    self._next_generation()
        finally:
            self._member = None
            self._positions.clear()
            self._revoked.clear()
            self._db.close()
            with self._commit_lock:
                self._commit_db.close()

    # membership: the loop's thread

    def _sync_is_due(self) -> bool:
        if not 0 <= self._monotonic() - self._synced_at < self._session_seconds / 5:
            return True
        with explained(self._path):
            row = self._db.execute("SELECT generation FROM groups WHERE id = ?", (self._group_id,)).fetchone()
        return row is None or row[0] != self._generation

    def _sync_unless_disk_full(self) -> Poll | None:
        """Runs a round of the group protocol. On a full disk no member can write, so none can join or remove another:
        this member keeps its partitions and tries again after a fifth of a session."""
        try:
            with explained(self._path):
                return self._sync()
        except DiskFull as error:
            now = self._synced_at = self._monotonic()
            self._disk_full = error
            if now - self._logged_at >= REMIND_SECONDS:
                self._logged_at = now
                log.warning("disk_full", error=str(error))
            return None

    def _sync(self) -> Poll | None:
        """One round of the group protocol. This member's state changes only after the transaction is committed."""
        now = self._monotonic()
        joining = self._member is None
        member = self._member or new_member()
        with transaction(self._db):
            if not joining and not _is_member(self._db, self._group_id, member):
                change = None
            else:
                ids = {
                    partition: i for topic in self._topics for partition, i in partition_ids(self._db, topic).items()
                }
                change = self._take_part(member, now)
        self._synced_at = now
        if change is None:
            return self._lose_everything()
        self._member, self._ids, self._generation = member, ids, change.generation
        partitions = {row_id: partition for partition, row_id in ids.items()}
        assigned = {partitions[row_id]: self._committed(row_id) for row_id in change.claimed}
        revoked = frozenset(partitions[row_id] for row_id in change.revoked)
        self._positions.update(assigned)
        for partition in revoked:
            del self._positions[partition]
        self._revoked |= revoked
        if joining:
            log.info("group_joined", group=self._group_id, member=member)
        return Poll(assigned=frozenset(assigned), revoked=revoked) if assigned or revoked else None

    def _lose_everything(self) -> Poll | None:
        """Another member removed this one. It joins again, under a new name, at the next poll and not in this one:
        until then its commits are fenced, so nothing prepared under the old claims is committed under new ones."""
        lost = frozenset(self._positions) | self._revoked
        log.warning("group_membership_lost", group=self._group_id, member=self._member, partitions=len(lost))
        self._member = None
        self._positions.clear()
        self._revoked.clear()
        self._synced_at = float("-inf")
        return Poll(lost=lost) if lost else None

    def _take_part(self, member: str, now: float) -> _Change:
        changed = not _is_member(self._db, self._group_id, member)
        self._beats += 1  # the column `seen_at` counts heartbeats
        self._db.execute(
            "INSERT OR REPLACE INTO members (group_id, id, topics, seen_at) VALUES (?, ?, ?, ?)",
            (self._group_id, member, json.dumps(self._topics), self._beats),
        )
        others = self._db.execute(
            "SELECT id, seen_at FROM members WHERE group_id = ? AND id != ?", (self._group_id, member)
        )
        dead = self._peers.dead(dict(others.fetchall()), now)
        for other in dead:
            log.warning("group_member_removed", group=self._group_id, member=other)
            self._remove_member(other)
        claimed: list[int] = []
        revoked: list[int] = []
        for topic in self._topics:
            self._balance(topic, member, claimed, revoked)
        changed = changed or bool(dead or claimed or revoked)
        return _Change(self._next_generation() if changed else self._read_generation(), tuple(claimed), tuple(revoked))

    def _balance(self, topic: str, member: str, claimed: list[int], revoked: list[int]) -> None:
        claims = self._db.execute(
            "SELECT id, member, revoking FROM partitions LEFT JOIN claims ON partition = id AND group_id = ?"
            " WHERE topic = ? ORDER BY number",
            (self._group_id, topic),
        ).fetchall()
        members = self._db.execute("SELECT id, topics FROM members WHERE group_id = ?", (self._group_id,))
        held: dict[str, list[int]] = {name: [] for name, topics in members if topic in json.loads(topics)}
        free: list[int] = []
        for row_id, owner, revoking in claims:
            if owner is None:
                free.append(row_id)
            elif owner in held and not revoking:
                held[owner].append(row_id)
        share = fair_share({name: len(row_ids) for name, row_ids in held.items()}, len(claims), member)
        surplus = held[member][share:]
        wanted = free[: max(0, share - len(held[member]))]
        self._db.executemany(
            "UPDATE claims SET revoking = 1 WHERE group_id = ? AND partition = ?",
            [(self._group_id, row_id) for row_id in surplus],
        )
        self._db.executemany(
            "INSERT INTO claims (group_id, partition, member) VALUES (?, ?, ?)",
            [(self._group_id, row_id, member) for row_id in wanted],
        )
        # a new group starts at the oldest record, and from now on nothing behind its offset may be trimmed
        self._db.executemany(
            "INSERT OR IGNORE INTO offsets (group_id, partition, next_offset)"
            " SELECT ?1, id, coalesce((SELECT min(offset) FROM records WHERE partition = id), next_offset)"
            " FROM partitions WHERE id = ?2",
            [(self._group_id, row_id) for row_id in wanted],
        )
        claimed += wanted
        revoked += surplus

    def _remove_member(self, member: str) -> None:
        self._db.execute("DELETE FROM claims WHERE group_id = ? AND member = ?", (self._group_id, member))
        self._db.execute("DELETE FROM members WHERE group_id = ? AND id = ?", (self._group_id, member))

    def _next_generation(self) -> int:
        """Makes the other members run a round of the protocol at their next poll."""
        (generation,) = self._db.execute(
            "INSERT INTO groups (id, generation) VALUES (?, 1)"
            " ON CONFLICT (id) DO UPDATE SET generation = generation + 1 RETURNING generation",
            (self._group_id,),
        ).fetchone()
        return int(generation)

    def _read_generation(self) -> int:
        row = self._db.execute("SELECT generation FROM groups WHERE id = ?", (self._group_id,)).fetchone()
        return int(row[0])

    # reading: the loop's thread

    def _committed(self, row_id: int) -> int:
        key = (self._group_id, row_id)
        (offset,) = self._db.execute(
            "SELECT next_offset FROM offsets WHERE group_id = ? AND partition = ?", key
        ).fetchone()
        return int(offset)

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

    def _check_claims(self, member: str | None, offsets: Mapping[Partition, int]) -> None:
        if member is None or not _is_member(self._commit_db, self._group_id, member):
            raise Fenced(f"this member of group {self._group_id!r} has been removed from it")
        for partition, offset in offsets.items():
            row = self._commit_db.execute(
                "SELECT claims.member, offsets.next_offset FROM partitions"
                " JOIN claims ON claims.partition = id AND claims.group_id = ?1"
                " JOIN offsets ON offsets.partition = id AND offsets.group_id = ?1"
                " WHERE topic = ?2 AND number = ?3",
                (self._group_id, partition.topic, partition.number),
            ).fetchone()
            name = f"{partition.topic}-{partition.number} of group {self._group_id!r}"
            if row is None or row[0] != member:
                raise Fenced(f"{name} is no longer this member's")
            if offset < row[1]:
                raise Fenced(f"{name} is committed up to {row[1]}; a commit of {offset} comes too late")

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


def fair_share(held: Mapping[str, int], partitions: int, member: str) -> int:
    """The number of partitions that the member should own. Members that own the most get the remainder, so that the
    fewest partitions move."""
    rank = sorted(held, key=lambda name: (-held[name], name)).index(member)
    share, remainder = divmod(partitions, len(held))
    return share + (rank < remainder)


def _is_member(db: sqlite3.Connection, group_id: str, member: str) -> bool:
    found = db.execute("SELECT 1 FROM members WHERE group_id = ? AND id = ?", (group_id, member)).fetchone()
    return found is not None
