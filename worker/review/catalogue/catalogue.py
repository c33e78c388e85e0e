"""Items and decisions as the topics have them, kept by one desk for itself."""

import itertools
import json
import sqlite3
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final
from zlib import crc32

from schemas import Decision, ReviewItem
from worker.intake.log import Partition
from worker.intake.sqlite_topics import transaction
from worker.review.answers import Status
from worker.review.catalogue.duplicates import Fingerprint, fingerprints
from worker.review.catalogue.file import connect, explained
from worker.review.catalogue.near_items import NearItems
from worker.review.catalogue.text import indexed
from worker.review.index.entry import AT, CLUSTER, DUE, ITEM, LANES, Entry, at_field, compact, decision_field
from worker.review.item_state import ItemState, fold
from worker.review.order import due
from worker.review.placed import Placed
from worker.review.waiting import held
from worker.settings import ReviewSettings

FILE: Final = "desk-catalogue.sqlite"
WRITE_SECONDS: Final = 60.0
IDLE_READERS: Final = 4
READER_CACHE_KIB: Final = 4_096
"""Of each reader; the operating system keeps the rest of the file."""
CHUNK: Final = 500


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
        with held(self._lock, WRITE_SECONDS, "writing to the catalogue"), explained(self.path), transaction(self._db):
            partitions = self._partition_ids(
                [*positions, *(i.partition for i in items), *(d.partition for d in decisions)]
            )
            self._db.executemany(
                "INSERT OR IGNORE INTO decisions VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        each.message.item_id,
                        partitions[each.partition],
                        each.offset,
                        each.message.decided_at.timestamp(),
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
            for item_id in known & states.keys():
                self._update(item_id, states[item_id])
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
        """Removes items that were settled before, and decisions made before on items that are no more; how many items.
        Raises LogError."""
        with held(self._lock, WRITE_SECONDS, "writing to the catalogue"), explained(self.path), transaction(self._db):
            old = self._db.execute(
                "SELECT id, item_id, item FROM items JOIN bodies USING (id) WHERE closed_at < ? LIMIT ?",
                (closed_before.timestamp(), CHUNK),
            ).fetchall()
            for row_id, item_id, body in old:
                self._unwrite_texts(row_id, ReviewItem.model_validate_json(body))
                self._db.execute("DELETE FROM decisions WHERE item_id = ?", (item_id,))
                self._db.execute("DELETE FROM marks WHERE id = ?", (row_id,))
                self._db.execute("DELETE FROM bodies WHERE id = ?", (row_id,))
                self._db.execute("DELETE FROM items WHERE id = ?", (row_id,))
            if old:
                self._db.execute("DELETE FROM buckets WHERE id NOT IN (SELECT id FROM items)")
            else:
                self._db.execute(
                    "DELETE FROM decisions WHERE decided_at < ? AND item_id NOT IN (SELECT item_id FROM items)",
                    (decided_before.timestamp(),),
                )
        return len(old)

    def clear(self) -> None:
        """Removes everything, positions too. Raises LogError."""
        with held(self._lock, WRITE_SECONDS, "writing to the catalogue"), explained(self.path), transaction(self._db):
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
        row_ids = self._free_ids([placed.message for placed in new.values()])
        near = NearItems(self._db, self._settings.duplicate_cosine, prints.values())
        rows, bodies, marks, written = [], [], [], []
        for item_id, placed in new.items():
            item, state, row_id, mark = placed.message, states[item_id], row_ids[item_id], prints[item_id]
            waits = state.status in LANES and not state.alone
            cluster = near.join(item, row_id, mark) if waits else item_id
            rows.append(
                (
                    row_id,
                    item_id,
                    partitions[placed.partition],
                    placed.offset,
                    item.event_id,
                    item.content_hash,
                    item.queue,
                    item.tenant,
                    item.generator,
                    item.scores.quality if item.scores is not None else None,
                    due(item.created_at, item.priority, item.tenant, self._settings),
                    cluster,
                    state.status.value,
                    state.alone,
                    state.closed_at.timestamp() if state.closed_at is not None else None,
                )
            )
            bodies.append((row_id, compact(item), mark.sketch if waits else None))
            written.append((row_id, item, state))
            marks += _marks(row_id, item, state)
        self._db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT INTO bodies VALUES (?, ?, ?)", bodies)
        near.write()
        self._write_texts(written)
        self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", marks)

    def _update(self, item_id: str, state: ItemState) -> None:
        """After further decisions on an item that is there."""
        row_id, body = self._db.execute(
            "SELECT id, item FROM items JOIN bodies USING (id) WHERE item_id = ?", (item_id,)
        ).fetchone()
        item = ReviewItem.model_validate_json(body)
        closed_at = state.closed_at.timestamp() if state.closed_at is not None else None
        self._db.execute(
            "UPDATE items SET status = ?, alone = ?, closed_at = ?, cluster = CASE WHEN ? THEN item_id ELSE cluster END"
            " WHERE id = ?",
            (state.status.value, state.alone, closed_at, state.alone, row_id),
        )
        if _notes(state) != self._notes_of(row_id):
            self._unwrite_texts(row_id, item)
            self._write_texts([(row_id, item, state)])
        self._db.execute("DELETE FROM marks WHERE id = ?", (row_id,))
        self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", _marks(row_id, item, state))

    def _write_texts(self, rows: Sequence[tuple[int, ReviewItem, ItemState]]) -> None:
        self._db.executemany(
            "INSERT INTO texts (rowid, prompt, ids, notes) VALUES (?, ?, ?, ?)",
            # By rising id: the full-text index writes out what it holds whenever an id falls.
            sorted((row_id, *_texts(item), _notes(state)) for row_id, item, state in rows),
        )
        self._db.executemany(
            "INSERT OR REPLACE INTO notes VALUES (?, ?)",
            [(row_id, notes) for row_id, _, state in rows if (notes := _notes(state))],
        )

    def _unwrite_texts(self, row_id: int, item: ReviewItem) -> None:
        """The full-text index keeps no texts: to remove one, it must be given again as it was."""
        self._db.execute(
            "INSERT INTO texts (texts, rowid, prompt, ids, notes) VALUES ('delete', ?, ?, ?, ?)",
            (row_id, *_texts(item), self._notes_of(row_id)),
        )
        self._db.execute("DELETE FROM notes WHERE id = ?", (row_id,))

    def _notes_of(self, row_id: int) -> str:
        row = self._db.execute("SELECT text FROM notes WHERE id = ?", (row_id,)).fetchone()
        return str(row[0]) if row else ""

    def _free_ids(self, items: Sequence[ReviewItem]) -> dict[str, int]:
        """When each item came, in microseconds; where others came in the same one, a little later."""
        came = {item.item_id: int(item.created_at.timestamp() * 1_000_000) for item in items}
        rows = self._db.execute(
            "SELECT id FROM items WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(list(came.values())),)
        )
        taken = {row_id for (row_id,) in rows}
        free: dict[str, int] = {}
        for item_id, wanted in came.items():
            row_id = wanted
            if row_id in taken:
                scattered = wanted + crc32(item_id.encode()) % 1_000_000
                choices = itertools.chain(range(wanted + 1, wanted + 8), itertools.count(scattered))
                row_id = next(each for each in choices if each not in taken and not self._is_taken(each))
            taken.add(row_id)
            free[item_id] = row_id
        return free

    def _is_taken(self, row_id: int) -> bool:
        return self._db.execute("SELECT 1 FROM items WHERE id = ?", (row_id,)).fetchone() is not None


def _texts(item: ReviewItem) -> tuple[str, str]:
    """What of an item is searched by words, beside the notes on it: its prompt and its ids."""
    return indexed(item.prompt or ""), f"{item.item_id} {item.event_id}"


def _notes(state: ItemState) -> str:
    return indexed("\n".join([decision.note for decision in state.counted if decision.note])) if state.counted else ""


def _marks(row_id: int, item: ReviewItem, state: ItemState) -> list[tuple[str, str, int]]:
    marks = [("label", label, row_id) for label in item.labels]
    for decision in state.counted:
        marks += [("label", label, row_id) for label in decision.labels]
        marks += [("reviewer", decision.reviewer, row_id), ("outcome", decision.outcome, row_id)]
    return marks
