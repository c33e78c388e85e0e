"""Writes items and decisions into the index: in any order, any number of times, from any number of processes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import redis

from schemas import Decision, ReviewItem
from worker.intake.log import Partition
from worker.review.index import keys
from worker.review.index.change import Change
from worker.review.index.duplicates import Duplicates, fingerprint
from worker.review.index.entry import AT, CLUSTER, DUE, ITEM, Entry, at_field, decision_field, slim
from worker.review.order import due
from worker.settings import ReviewSettings

_AT_ONCE: Final = 100
_PURGED_AT_ONCE: Final = 500

T = TypeVar("T", ReviewItem, Decision)


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """A message and where it stands in the log."""

    message: T
    partition: Partition
    offset: int


class Index:
    """The items, their states, and the lanes in which they wait.

    Each item's entry is a set of records, each under its place in the log, from which its state is folded; so records
    may come twice and in any order, and what several processes write comes to the same. All that follows from an entry
    (lanes, counts, clusters) changes in one transaction with it.

    It relies on two things. Redis evicts no keys without an expiry (`maxmemory-policy` noeviction or volatile-…). And
    the decisions topic keeps its number of partitions: an item's decisions are in order within one.
    """

    def __init__(self, client: redis.Redis, settings: ReviewSettings) -> None:
        self._redis = client
        self._settings = settings
        self._duplicates = Duplicates(client, settings.duplicate_cosine)

    def entries(self, item_ids: Sequence[str]) -> dict[str, Entry]:
        """The entries that exist, also those that have no item yet."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for item_id in item_ids:
                pipeline.hgetall(keys.item(item_id))
            found = pipeline.execute()
        return {item_id: Entry(fields) for item_id, fields in zip(item_ids, found, strict=True) if fields}

    def apply(
        self,
        items: Sequence[Placed[ReviewItem]] = (),
        decisions: Sequence[Placed[Decision]] = (),
        *,
        quiet: bool = False,
    ) -> dict[str, Entry]:
        """Takes records in; the entries as they are then. `quiet`: the desks are not told, as when building anew."""
        added: dict[str, dict[bytes, bytes]] = {}
        for decision in decisions:
            field = decision_field(decision.partition, decision.offset)
            added.setdefault(decision.message.item_id, {})[field] = decision.message.model_dump_json().encode()
        for item in items:
            added.setdefault(item.message.item_id, {}).update(self._fields(item))
        known = self.entries([item.message.item_id for item in items])
        for item in items:
            item_id = item.message.item_id
            before = known.get(item_id, Entry({}))
            after = Entry({**added[item_id], **before.fields})
            if before.item is None and after.lane is not None and not after.state.alone:
                added[item_id][CLUSTER] = self._duplicates.join(item_id, fingerprint(item.message)).encode()
        ids = list(added)
        result: dict[str, Entry] = {}
        for start in range(0, len(ids), _AT_ONCE):
            result |= self._write({item_id: added[item_id] for item_id in ids[start : start + _AT_ONCE]}, quiet)
        return result

    def purge(self, closed_before: datetime) -> int:
        """Removes items that were settled before; how many."""
        old: Any = self._redis.zrangebyscore(keys.CLOSED, "-inf", closed_before.timestamp(), 0, _PURGED_AT_ONCE)
        ids = [item_id.decode() for item_id in old]
        with self._redis.pipeline() as pipeline:
            for item_id, entry in self.entries(ids).items():
                if entry.item is not None:
                    pipeline.srem(keys.event(entry.item.event_id), item_id)
                    pipeline.srem(keys.content(entry.item.content_hash or ""), item_id)
            for item_id in ids:
                pipeline.delete(keys.item(item_id), keys.excluded(item_id))
                pipeline.zrem(keys.NEWEST, item_id)
                pipeline.zrem(keys.CLOSED, item_id)
                pipeline.hdel(keys.SETTLED_AFTER, item_id)
                pipeline.hdel(keys.PANELS, item_id)
            pipeline.execute()
        return len(ids)

    def _fields(self, item: Placed[ReviewItem]) -> dict[bytes, bytes]:
        message = item.message
        when = due(message.created_at, message.priority, message.tenant, self._settings)
        return {
            ITEM: slim(message).model_dump_json().encode(),
            AT: at_field(item.partition, item.offset),
            CLUSTER: message.item_id.encode(),
            DUE: repr(when).encode(),
        }

    def _write(self, added: Mapping[str, Mapping[bytes, bytes]], quiet: bool) -> dict[str, Entry]:
        with self._redis.pipeline() as pipeline:
            while True:
                try:
                    pipeline.watch(*map(keys.item, added))  # type: ignore[no-untyped-call]
                    changes = self._changes(added)
                    if any(change.is_new for change, _ in changes):
                        pipeline.multi()
                        for change, buckets in changes:
                            change.write(pipeline, buckets, quiet)
                        pipeline.execute()
                except redis.WatchError:
                    continue
                return {change.item_id: change.after for change, _ in changes}

    def _changes(self, added: Mapping[str, Mapping[bytes, bytes]]) -> list[tuple[Change, list[str]]]:
        """What the fields change, as the index is now, and the buckets in which each item lies."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for item_id in added:
                pipeline.hgetall(keys.item(item_id))
            for item_id in added:
                pipeline.hget(keys.near(item_id), "buckets")
            found = pipeline.execute()
        return [
            (Change(item_id, Entry(before), fields), buckets.decode().split("\n") if buckets else [])
            for (item_id, fields), before, buckets in zip(
                added.items(), found[: len(added)], found[len(added) :], strict=True
            )
        ]
