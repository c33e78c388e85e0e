"""All that a catalogue holds: for snapshots, and for what of the topics is still needed."""

import itertools
import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import datetime
from typing import Final

from worker.intake.log import Partition
from worker.review.answers import Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.index.entry import LANES
from worker.review.snapshot.form import ITEMS_A_FRAME, StoredDecision, StoredItem

_WAITING: Final = json.dumps([status.value for status in LANES])
_ITEMS: Final = """
SELECT item_id, item, partition, offset, placed_at, cluster,
    CASE WHEN status IN (SELECT value FROM json_each(?)) AND NOT alone THEN sketch END
FROM items JOIN bodies USING (id) ORDER BY id"""
_FIRST_ITEMLESS: Final = """
SELECT partition, min(offset) FROM decisions
WHERE NOT EXISTS (SELECT 1 FROM items WHERE items.item_id = decisions.item_id) GROUP BY partition"""
_WAITING_SINCE: Final = """
SELECT item_id, number, offset FROM items JOIN positions ON positions.id = partition
WHERE topic = ? AND placed_at < ? AND status IN (SELECT value FROM json_each(?)) ORDER BY placed_at"""
_OLDEST_ITEMS: Final = "SELECT item_id, offset FROM items WHERE partition = ? AND offset >= ? ORDER BY offset"
_OLDEST_DECISIONS: Final = """
SELECT item_id, offset FROM decisions WHERE partition = ? AND offset >= ? AND (written_at >= ? OR NOT EXISTS (
    SELECT 1 FROM items WHERE items.item_id = decisions.item_id AND closed_at IS NULL))
ORDER BY offset"""


@contextmanager
def contents(catalogue: Catalogue) -> Iterator[tuple[dict[Partition, int], Iterator[list[StoredItem]]]]:
    """All items, and the positions from which reading can go on with them. What is written meanwhile is not seen.
    Raises LogError.

    A decision may have been read before its item. The positions are those before the first such decision: it is read
    again. Decisions that are read twice change nothing.
    """
    with catalogue.reader() as db:
        db.execute("BEGIN")
        try:
            rows = db.execute("SELECT id, topic, number, next_offset FROM positions").fetchall()
            places = {row_id: (topic, number) for row_id, topic, number, _ in rows}
            first_itemless = dict(db.execute(_FIRST_ITEMLESS).fetchall())
            positions = {
                Partition(topic, number): min(offset, first_itemless.get(row_id, offset))
                for row_id, topic, number, offset in rows
            }

            def items() -> Iterator[list[StoredItem]]:
                found = db.execute(_ITEMS, (_WAITING,))
                while some := found.fetchmany(ITEMS_A_FRAME):
                    yield [
                        StoredItem(
                            body,
                            *places[partition],
                            offset,
                            placed_at,
                            cluster,
                            sketch,
                            [
                                StoredDecision(*places[where], *made)
                                for where, *made in db.execute(
                                    "SELECT partition, offset, written_at, body FROM decisions WHERE item_id = ?"
                                    " ORDER BY partition, offset",
                                    (item_id,),
                                )
                            ],
                        )
                        for item_id, body, partition, offset, placed_at, cluster, sketch in some
                    ]

            yield positions, items()
        finally:
            db.execute("COMMIT")


def count_by_status(catalogue: Catalogue) -> dict[Status, int]:
    """How many items there are. Raises LogError."""
    with catalogue.reader() as db:
        return {Status(name): count for name, count in db.execute("SELECT status, count(*) FROM items GROUP BY status")}


def waiting_since(catalogue: Catalogue, topic: str, before: datetime) -> list[tuple[str, Partition, int]]:
    """Items that still wait and whose record in `topic` was written before: id and place. Raises LogError."""
    with catalogue.reader() as db:
        rows = db.execute(_WAITING_SINCE, (topic, before.timestamp(), _WAITING))
        return [(item_id, Partition(topic, number), offset) for item_id, number, offset in rows]


def oldest_items(
    catalogue: Catalogue, starts: Mapping[Partition, int], without: Collection[str]
) -> dict[Partition, int]:
    """The offset of the first item, from `starts` on, in each partition that has one. `without` those. Raises
    LogError."""
    return _oldest(catalogue, starts, _OLDEST_ITEMS, (), without)


def oldest_decisions(catalogue: Catalogue, starts: Mapping[Partition, int], since: datetime) -> dict[Partition, int]:
    """The offset of the first decision, from `starts` on, that was written since, or whose item is settled. Raises
    LogError."""
    return _oldest(catalogue, starts, _OLDEST_DECISIONS, (since.timestamp(),), ())


def _oldest(
    catalogue: Catalogue,
    starts: Mapping[Partition, int],
    query: str,
    values: tuple[float, ...],
    without: Collection[str],
) -> dict[Partition, int]:
    found = {}
    with catalogue.reader() as db:
        for row_id, topic, number in db.execute("SELECT id, topic, number FROM positions").fetchall():
            partition = Partition(topic, number)
            if partition in starts:
                with closing(db.execute(query, (row_id, starts[partition], *values))) as rows:
                    first = next(itertools.dropwhile(lambda row: row[0] in without, rows), None)
                if first is not None:
                    found[partition] = first[1]
    return found
