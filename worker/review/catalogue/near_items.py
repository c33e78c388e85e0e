"""Finds the clusters of new items, in a few queries for many items."""

import json
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from schemas import ReviewItem
from worker.review.catalogue.duplicates import Fingerprint, cosine
from worker.review.index.entry import LANES

_WRITTEN_AT_ONCE: Final = 50_000
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


class LastOfBuckets:
    """The row ids of the items that came last to the buckets of many items, written at once: in the order of the
    table, SQLite only ever appends."""

    def __init__(self) -> None:
        self._numbers = array("q")
        self._row_ids = array("q")

    def add(self, row_id: int, buckets: Sequence[int]) -> None:
        """To be called in the order in which the items came."""
        self._numbers.extend(buckets)
        self._row_ids.extend([row_id] * len(buckets))

    def write(self, db: sqlite3.Connection) -> None:
        """Into an empty table."""
        if not self._numbers:
            return
        numbers, row_ids = np.frombuffer(self._numbers, np.int64), np.frombuffer(self._row_ids, np.int64)
        order = np.argsort(numbers, kind="stable")
        is_last = np.append(np.diff(numbers[order]) != 0, True)
        chosen = order[is_last]
        for start in range(0, len(chosen), _WRITTEN_AT_ONCE):
            some = chosen[start : start + _WRITTEN_AT_ONCE]
            db.executemany(
                "INSERT INTO buckets VALUES (?, ?)", zip(numbers[some].tolist(), row_ids[some].tolist(), strict=True)
            )
