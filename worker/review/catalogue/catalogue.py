"""Items and decisions as the topics have them, kept by one desk for itself."""

import json
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import Decision, ReviewItem
from worker.intake.log import Partition
from worker.intake.sqlite_topics import transaction
from worker.review.answers import Status
from worker.review.catalogue.duplicates import Fingerprint, fingerprints, fingerprints_of
from worker.review.catalogue.file import connect, explained
from worker.review.catalogue.near_items import LastOfBuckets, NearItems
from worker.review.catalogue.rows import ItemRows, NewRow
from worker.review.index.entry import (
    AT,
    CLUSTER,
    DUE,
    ITEM,
    LANES,
    Entry,
    alone_cluster,
    at_field,
    compact,
    decision_field,
)
from worker.review.item_state import ItemState, fold
from worker.review.placed import Placed
from worker.review.snapshot.form import BrokenSnapshot, StoredItem
from worker.review.waiting import held
from worker.settings import ReviewSettings

log = structlog.get_logger(__name__)

FILE: Final = "desk-catalogue.sqlite"
WRITE_SECONDS: Final = 60.0
IDLE_READERS: Final = 4
READER_CACHE_KIB: Final = 4_096
"""Of each reader; the operating system keeps the rest of the file."""
CHUNK: Final = 500
_INSERT_DECISION: Final = "INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?, ?)"


class Catalogue:
    """One file. What was taken in survives a restart together with the positions up to which the topics were read, so
    reading goes on from there. Thread-safe; several processes may share the file.

    Of an item that comes twice the first one counts. Decisions may come before their item.
    """

    def __init__(self, path: Path, settings: ReviewSettings) -> None:
        """Raises LogError."""
        self.path = path
        self._settings = settings
        self._db = connect(path)
        self._rows = ItemRows(self._db, settings)
        self._lock = threading.Lock()
        self._idle: deque[sqlite3.Connection] = deque()  # of readers; its methods are atomic

    def close(self) -> None:
        """Nobody may use the catalogue any more."""
        while self._idle:
            self._idle.pop().close()
        self._db.close()

    def positions(self) -> dict[Partition, int]:
        """The next offset of each partition that was read."""
        with self.reader() as db:
            rows = db.execute("SELECT topic, number, next_offset FROM positions").fetchall()
        return {Partition(topic, number): offset for topic, number, offset in rows}

    def count(self) -> int:
        """How many items there are."""
        with self.reader() as db:
            return int(db.execute("SELECT count(*) FROM items").fetchone()[0])

    def take(
        self,
        items: Sequence[Placed[ReviewItem]],
        decisions: Sequence[Placed[Decision]],
        positions: Mapping[Partition, int],
    ) -> list[str]:
        """Takes records in, with the positions after them; ids of the items that they are about. Raises LogError."""
        prints = dict(
            zip((item.message.item_id for item in items), fingerprints([i.message for i in items]), strict=True)
        )
        with self._writing():
            partitions = self._partition_ids(
                [*positions, *(i.partition for i in items), *(d.partition for d in decisions)]
            )
            self._db.executemany(
                _INSERT_DECISION,
                [
                    (
                        each.message.item_id,
                        partitions[each.partition],
                        each.offset,
                        each.written_at or each.message.decided_at.timestamp(),
                        each.message.model_dump_json(exclude_defaults=True).encode(),
                    )
                    for each in decisions
                ],
            )
            touched = dict.fromkeys([i.message.item_id for i in items] + [d.message.item_id for d in decisions])
            known = self._known(touched)
            new = {each.message.item_id: each for each in items if each.message.item_id not in known}
            states = self._states([*new, *(d.message.item_id for d in decisions if d.message.item_id in known)])
            self._insert(new, prints, states, partitions)
            self._rows.move(
                (partitions[each.partition], each.offset, each.written_at, each.message.item_id)
                for each in items
                if each.message.item_id in known
            )
            for item_id in known & states.keys():
                self._rows.update(item_id, states[item_id])
            self._db.executemany(
                "UPDATE positions SET next_offset = max(next_offset, ?) WHERE id = ?",
                [(offset, partitions[partition]) for partition, offset in positions.items()],
            )
        return list(touched)

    def entries(self, item_ids: Sequence[str]) -> dict[str, Entry]:
        """The items that exist, whole."""
        with self.reader() as db:
            partitions = {
                row_id: Partition(topic, number)
                for row_id, topic, number in db.execute("SELECT id, topic, number FROM positions")
            }
            fields: dict[str, dict[bytes, bytes]] = {}
            wanted = json.dumps(list(item_ids))
            for item_id, partition, offset, cluster, due_at, body in db.execute(
                "SELECT item_id, partition, offset, cluster, due, item FROM items JOIN bodies USING (id)"
                " WHERE item_id IN (SELECT value FROM json_each(?))",
                (wanted,),
            ):
                fields[item_id] = {
                    ITEM: body,
                    AT: at_field(partitions[partition], offset),
                    CLUSTER: cluster.encode(),
                    DUE: repr(due_at).encode(),
                }
            for item_id, partition, offset, body in db.execute(
                "SELECT item_id, partition, offset, body FROM decisions"
                " WHERE item_id IN (SELECT value FROM json_each(?))",
                (wanted,),
            ):
                if item_id in fields:
                    fields[item_id][decision_field(partitions[partition], offset)] = body
        return {item_id: Entry(fields[item_id]) for item_id in item_ids if item_id in fields}

    def changed_since(self, positions: Mapping[Partition, int]) -> list[str]:
        """Ids of the items with a record at or after one of these positions, those first that are due first."""
        found: dict[str, float] = {}
        with self.reader() as db:
            for row_id, topic, number in db.execute("SELECT id, topic, number FROM positions").fetchall():
                offset = positions.get(Partition(topic, number), 0)
                found |= dict(
                    db.execute("SELECT item_id, due FROM items WHERE partition = ? AND offset >= ?", (row_id, offset))
                )
                found |= dict(
                    db.execute(
                        "SELECT item_id, due FROM items WHERE item_id IN"
                        " (SELECT item_id FROM decisions WHERE partition = ? AND offset >= ?)",
                        (row_id, offset),
                    )
                )
        return sorted(found, key=found.__getitem__)

    def ids(self, queue: str | None = None, status: Status | None = None) -> list[str]:
        """Of all items, the newest first."""
        with self.reader() as db:
            rows = db.execute(
                "SELECT item_id FROM items WHERE coalesce(queue = ?, 1) AND coalesce(status = ?, 1) ORDER BY id DESC",
                (queue, None if status is None else status.value),
            )
            return [item_id for (item_id,) in rows]

    def purge(self, closed_before: datetime, decided_before: datetime) -> int:
        """Removes items that were settled before, and decisions of before on items that are no more; how many items.
        Raises LogError."""
        with self._writing():
            removed = self._rows.remove(closed_before.timestamp(), CHUNK)
            if removed == 0:
                self._db.execute("DELETE FROM buckets WHERE id NOT IN (SELECT id FROM items)")
                self._db.execute(
                    "DELETE FROM decisions WHERE written_at < ? AND item_id NOT IN (SELECT item_id FROM items)",
                    (decided_before.timestamp(),),
                )
        return removed

    def decided_since(self, item_ids: Sequence[str], since: datetime) -> dict[str, float]:
        """When the last decision on each of these items was written, of those where that was since. An item may be
        settled by a vote that is much older than its record: one that was imported."""
        with self.reader() as db:
            rows = db.execute(
                "SELECT item_id, max(written_at) FROM decisions WHERE item_id IN (SELECT value FROM json_each(?))"
                " GROUP BY item_id HAVING max(written_at) >= ?",
                (json.dumps(list(item_ids)), since.timestamp()),
            )
            return dict(rows.fetchall())

    def clear(self) -> None:
        """Removes everything, positions too. Raises LogError."""
        with self._writing():
            self._clear()

    def restore(self, items: Iterable[Sequence[StoredItem]], positions: Mapping[Partition, int]) -> int:
        """Takes in the items of a snapshot and the positions up to which it holds what the topics say; how many items.
        All or none, in place of whatever there is. Raises BrokenSnapshot, LogError."""
        count = 0
        with self._writing():
            self._clear()
            partitions = self._partition_ids(positions)
            last = LastOfBuckets()
            for some in items:
                count += self._restore(some, partitions, last)
            last.write(self._db)
            self._db.executemany(
                "UPDATE positions SET next_offset = ? WHERE id = ?",
                [(offset, partitions[partition]) for partition, offset in positions.items()],
            )
        return count

    def _clear(self) -> None:
        for table in ("items", "bodies", "decisions", "marks", "notes", "buckets", "positions", "meta"):
            self._db.execute(f"DELETE FROM {table}")  # noqa: S608  # the names are constants
        self._db.execute("INSERT INTO texts (texts) VALUES ('delete-all')")

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection for one thread, which sees what was committed. Up to IDLE_READERS stay open for the next ones.
        Raises LogError."""
        with explained(self.path):
            try:
                db = self._idle.pop()
            except IndexError:
                db = connect(self.path, cache_kib=READER_CACHE_KIB)
            try:
                yield db
            finally:
                if len(self._idle) < IDLE_READERS:
                    self._idle.append(db)
                else:
                    db.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with held(self._lock, WRITE_SECONDS, "writing to the catalogue"), explained(self.path), transaction(self._db):
            yield

    def _partition_ids(self, partitions: Iterable[Partition]) -> dict[Partition, int]:
        wanted = list(partitions)
        self._db.executemany("INSERT OR IGNORE INTO positions (topic, number, next_offset) VALUES (?, ?, 0)", wanted)
        rows = self._db.execute("SELECT id, topic, number FROM positions")
        return {Partition(topic, number): row_id for row_id, topic, number in rows}

    def _known(self, item_ids: Iterable[str]) -> set[str]:
        rows = self._db.execute(
            "SELECT item_id FROM items WHERE item_id IN (SELECT value FROM json_each(?))", (json.dumps(list(item_ids)),)
        )
        return {item_id for (item_id,) in rows}

    def _states(self, item_ids: Sequence[str]) -> dict[str, ItemState]:
        made: dict[str, list[Decision]] = {item_id: [] for item_id in item_ids}
        rows = self._db.execute(
            "SELECT item_id, body FROM decisions WHERE item_id IN (SELECT value FROM json_each(?))"
            " ORDER BY item_id, partition, offset",
            (json.dumps(list(made)),),
        )
        for item_id, body in rows:
            made[item_id].append(Decision.model_validate_json(body))
        return {item_id: fold(decisions) for item_id, decisions in made.items()}

    def _insert(
        self,
        new: Mapping[str, Placed[ReviewItem]],
        prints: Mapping[str, Fingerprint],
        states: Mapping[str, ItemState],
        partitions: Mapping[Partition, int],
    ) -> None:
        row_ids = self._rows.free_ids([placed.message for placed in new.values()])
        near = NearItems(self._db, self._settings.duplicate_cosine, prints.values())
        rows = []
        for item_id, placed in new.items():
            item, state, mark = placed.message, states[item_id], prints[item_id]
            waits = _has_near(state)
            cluster = near.join(item, row_ids[item_id], mark) if waits else item_id
            rows.append(
                NewRow(
                    item=item,
                    body=compact(item),
                    partition=partitions[placed.partition],
                    offset=placed.offset,
                    placed_at=placed.written_at or item.created_at.timestamp(),
                    state=state,
                    cluster=alone_cluster(item_id) if state.alone else cluster,
                    sketch=mark.sketch if waits else None,
                )
            )
        near.write()
        self._rows.insert(rows, row_ids)

    def _restore(self, stored: Sequence[StoredItem], partitions: Mapping[Partition, int], last: LastOfBuckets) -> int:
        rows, decisions = [], []
        for each in stored:
            try:
                item = ReviewItem.model_validate_json(each.item)
                state = fold(Decision.model_validate_json(made.body) for made in each.decisions)
            except ValidationError as error:
                log.warning("snapshot_item_passed_over", partition=each.number, offset=each.offset, error=str(error))
                continue
            try:
                place = partitions[Partition(each.topic, each.number)], each.offset, each.placed_at
                decisions += [
                    (
                        item.item_id,
                        partitions[Partition(made.topic, made.number)],
                        made.offset,
                        made.written_at,
                        made.body,
                    )
                    for made in each.decisions
                ]
            except KeyError as error:
                raise BrokenSnapshot(f"it has a record of {error} and no position of that partition") from error
            rows.append(NewRow(item, each.item, *place, state, each.cluster, each.sketch))
        items = [row.item for row in rows]
        row_ids = self._rows.free_ids(items)
        self._rows.insert(rows, row_ids)
        self._db.executemany(_INSERT_DECISION, decisions)
        waiting = [row for row in rows if _has_near(row.state)]
        marks = fingerprints_of([row.item for row in waiting], [row.sketch for row in waiting])
        for row, mark in zip(waiting, marks, strict=True):
            last.add(row_ids[row.item.item_id], mark.buckets)
        return len(rows)


def _has_near(state: ItemState) -> bool:
    """Whether an item in this state is judged together with its near duplicates."""
    return state.status in LANES and not state.alone
