"""The rows of items in the catalogue: written, changed and removed."""

import itertools
import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from zlib import crc32

from schemas import ReviewItem
from worker.review.catalogue.text import indexed
from worker.review.index.entry import alone_cluster
from worker.review.item_state import ItemState
from worker.review.order import due
from worker.settings import ReviewSettings


@dataclass(frozen=True, slots=True)
class NewRow:
    """An item to be written. `partition` is the row id of its topic's partition; `body` is the item by `compact`."""

    item: ReviewItem
    body: bytes
    partition: int
    offset: int
    placed_at: float
    state: ItemState
    cluster: str
    sketch: bytes | None


class ItemRows:
    """Used within one transaction of the caller."""

    def __init__(self, db: sqlite3.Connection, settings: ReviewSettings) -> None:
        self._db = db
        self._settings = settings

    def insert(self, new: Sequence[NewRow], row_ids: dict[str, int]) -> None:
        """Writes new items. `row_ids` as from `free_ids`."""
        rows, bodies, marks, written = [], [], [], []
        for each in new:
            item, state, row_id = each.item, each.state, row_ids[each.item.item_id]
            rows.append(
                (
                    row_id,
                    item.item_id,
                    each.partition,
                    each.offset,
                    each.placed_at,
                    item.event_id,
                    item.content_hash,
                    item.queue,
                    item.tenant,
                    item.generator,
                    item.scores.quality if item.scores is not None else None,
                    due(item.created_at, item.priority, item.tenant, self._settings),
                    each.cluster,
                    state.status.value,
                    state.alone,
                    state.closed_at.timestamp() if state.closed_at is not None else None,
                )
            )
            bodies.append((row_id, each.body, each.sketch))
            written.append((row_id, item, state))
            marks += _marks(row_id, item, state)
        self._db.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._db.executemany("INSERT INTO bodies VALUES (?, ?, ?)", bodies)
        self._write_texts(written)
        self._db.executemany("INSERT OR IGNORE INTO marks VALUES (?, ?, ?)", marks)

    def move(self, places: Iterable[tuple[int, int, float, str]]) -> None:
        """Of items that came again: partition, offset and time of the new record, and the item's id."""
        self._db.executemany(
            "UPDATE items SET partition = ?1, offset = ?2, placed_at = ?3"
            " WHERE item_id = ?4 AND NOT (partition = ?1 AND offset >= ?2)",
            places,
        )

    def remove(self, closed_before: float, at_most: int) -> int:
        """Removes items that were settled, and last decided on, before; how many."""
        old = self._db.execute(
            "SELECT id, item_id, item FROM items JOIN bodies USING (id) WHERE closed_at < ?1 AND NOT EXISTS"
            " (SELECT 1 FROM decisions WHERE decisions.item_id = items.item_id AND written_at >= ?1) LIMIT ?2",
            (closed_before, at_most),
        ).fetchall()
        for row_id, item_id, body in old:
            self._unwrite_texts(row_id, ReviewItem.model_validate_json(body))
            self._db.execute("DELETE FROM decisions WHERE item_id = ?", (item_id,))
            for table in ("marks", "bodies", "items"):
                self._db.execute(f"DELETE FROM {table} WHERE id = ?", (row_id,))  # noqa: S608  # names of ours
        return len(old)

    def update(self, item_id: str, state: ItemState) -> None:
        """After further decisions on an item that is there."""
        row_id, body = self._db.execute(
            "SELECT id, item FROM items JOIN bodies USING (id) WHERE item_id = ?", (item_id,)
        ).fetchone()
        item = ReviewItem.model_validate_json(body)
        closed_at = state.closed_at.timestamp() if state.closed_at is not None else None
        self._db.execute(
            "UPDATE items SET status = ?, alone = ?, closed_at = ?, cluster = CASE WHEN ? THEN ? ELSE cluster END"
            " WHERE id = ?",
            (state.status.value, state.alone, closed_at, state.alone, alone_cluster(item_id), row_id),
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

    def free_ids(self, items: Sequence[ReviewItem]) -> dict[str, int]:
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
