"""Finds the clusters of new items, in a few queries for many items."""

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas import ReviewItem
from worker.review.catalogue.duplicates import Fingerprint, cosine
from worker.review.index.entry import LANES

_WAITING: Final = json.dumps([status.value for status in LANES])


@dataclass(frozen=True, slots=True)
class _Known:
    cluster: str
    content_hash: str | None
    sketch: bytes | None


class NearItems:
    """The items that came last to the buckets of some new ones. Used within one transaction."""

    def __init__(self, db: sqlite3.Connection, least_cosine: float, prints: Iterable[Fingerprint]) -> None:
        self._db = db
        self._least = least_cosine
        numbers = [number for mark in prints for number in mark.buckets]
        rows = db.execute(
            "SELECT number, id FROM buckets WHERE number IN (SELECT value FROM json_each(?))", (json.dumps(numbers),)
        )
        self._last: dict[int, int] = dict(rows)
        self._known: dict[int, _Known] = self._stored(set(self._last.values()))
        self._new: dict[int, int] = {}

    def join(self, item: ReviewItem, row_id: int, mark: Fingerprint) -> str:
        """The cluster of the nearest waiting item that is near enough, else the item's own; the item is the last of its
        buckets from now on."""
        candidates = {self._last[number]: None for number in mark.buckets if number in self._last}
        best, nearest = item.item_id, self._least
        for each in candidates:
            known = self._known.get(each)
            if known is None:
                continue  # it waits no more
            if item.content_hash is not None and known.content_hash == item.content_hash:
                best = known.cluster
                break
            if known.sketch is not None and mark.sketch is not None and self._least < 1:
                near = cosine(mark.sketch, known.sketch)
                if near >= nearest:
                    best, nearest = known.cluster, near
        self._known[row_id] = _Known(best, item.content_hash, mark.sketch)
        for number in mark.buckets:
            self._last[number] = self._new[number] = row_id
        return best

    def write(self) -> None:
        """Stores which items are the last of their buckets now."""
        self._db.executemany(
            "INSERT OR REPLACE INTO buckets VALUES (?, ?)",
            [(number, self._new[number]) for number in sorted(self._new)],
        )

    def _stored(self, row_ids: Iterable[int]) -> dict[int, _Known]:
        rows = self._db.execute(
            "SELECT id, cluster, content_hash, sketch FROM items JOIN bodies USING (id)"
            " WHERE id IN (SELECT value FROM json_each(?)) AND NOT alone"
            " AND status IN (SELECT value FROM json_each(?))",
            (json.dumps(list(row_ids)), _WAITING),
        )
        return {row_id: _Known(cluster, content_hash, sketch) for row_id, cluster, content_hash, sketch in rows}
