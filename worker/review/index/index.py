"""Writes items and decisions into the index: in any order, any number of times, from any number of processes."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import redis

from schemas import Decision
from worker.review.index import keys
from worker.review.index.change import Change
from worker.review.index.entry import CUT, ITEM, Entry, cut, decision_field
from worker.review.index.writes import Writes
from worker.review.placed import Placed

_AT_ONCE: Final = 200
_PURGED_AT_ONCE: Final = 500


class Index:
    """The items, their states, and the lanes in which they wait.

    Each item's entry is a set of records, each under its place in the log, from which its state is folded; so records
    may come twice and in any order, and what several processes write comes to the same. All that follows from an entry
    (lanes, counts, clusters) changes in one transaction with it.

    It relies on two things. Redis evicts no keys without an expiry (`maxmemory-policy` noeviction or volatile-…). And
    the decisions topic keeps its number of partitions: an item's decisions are in order within one.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def entries(self, item_ids: Sequence[str]) -> dict[str, Entry]:
        """The entries that exist, also those that have no item yet."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for item_id in item_ids:
                pipeline.hgetall(keys.item(item_id))
            found = pipeline.execute()
        return {item_id: Entry(fields) for item_id, fields in zip(item_ids, found, strict=True) if fields}

    def apply(self, decisions: Sequence[Placed[Decision]]) -> dict[str, Entry]:
        """Takes decisions in; the entries as they are then."""
        added: dict[str, dict[bytes, bytes]] = {}
        for decision in decisions:
            field = decision_field(decision.partition, decision.offset)
            body = decision.message.model_dump_json(exclude_defaults=True).encode()
            added.setdefault(decision.message.item_id, {})[field] = body
        return self.load({item_id: Entry(fields) for item_id, fields in added.items()})

    def load(self, entries: Mapping[str, Entry], *, quiet: bool = False) -> dict[str, Entry]:
        """Takes entries in, whole or in parts; the entries as they are then. `quiet`: the desks are not told, as when
        an index is filled."""
        ids = list(entries)
        result: dict[str, Entry] = {}
        for start in range(0, len(ids), _AT_ONCE):
            result |= self._write(
                {item_id: _shortened(entries[item_id]) for item_id in ids[start : start + _AT_ONCE]}, quiet
            )
        return result

    def server_time(self) -> datetime:
        """The time by the clock of Redis."""
        seconds, microseconds = self._redis.time()
        return datetime.fromtimestamp(seconds + microseconds / 1e6, UTC)

    def purge(self, closed_before: datetime, decided_since: Callable[[Sequence[str]], Mapping[str, float]]) -> int:
        """Removes items that were settled before; how many it looked at. `decided_since` tells which of some items have
        a decision that was written since, and when: those count as settled then."""
        old: Any = self._redis.zrangebyscore(keys.CLOSED, "-inf", closed_before.timestamp(), 0, _PURGED_AT_ONCE)
        found = [item_id.decode() for item_id in old]
        later = decided_since(found) if found else {}
        if later:
            self._redis.zadd(keys.CLOSED, dict(later), xx=True)
        ids = [item_id for item_id in found if item_id not in later]
        if not ids:
            return len(found)
        people = {made.reviewer for entry in self.entries(ids).values() for made in entry.state.counted}
        with self._redis.pipeline() as pipeline:
            pipeline.delete(*map(keys.item, ids), *map(keys.excluded, ids))
            pipeline.zrem(keys.CLOSED, *ids)
            for reviewer in people:
                pipeline.hdel(keys.gold(reviewer), *ids)
            pipeline.hdel(keys.SETTLED_AFTER, *ids)
            pipeline.hdel(keys.PANELS, *ids)
            pipeline.execute()
        return len(found)

    def _write(self, added: Mapping[str, Mapping[bytes, bytes]], quiet: bool) -> dict[str, Entry]:
        with self._redis.pipeline() as pipeline:
            while True:
                try:
                    pipeline.watch(*map(keys.item, added))  # type: ignore[no-untyped-call]
                    found = self.entries(list(added))
                    changes = [
                        Change(item_id, found.get(item_id, Entry({})), fields) for item_id, fields in added.items()
                    ]
                    if any(change.is_new for change in changes):
                        pipeline.multi()
                        writes = Writes()
                        for change in changes:
                            change.write(pipeline, writes, quiet)
                        writes.queue(pipeline)
                        pipeline.execute()
                except redis.WatchError:
                    continue
                return {change.item_id: change.after for change in changes}


def _shortened(entry: Entry) -> dict[bytes, bytes]:
    """The fields, with a long prompt cut: the catalogue has it whole."""
    fields = dict(entry.fields)
    if (shorter := cut(entry)) is not None:
        fields |= {ITEM: shorter, CUT: b"1"}
    return fields
