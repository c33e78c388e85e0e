"""Writes items and decisions into the index: in any order, any number of times, from any number of processes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Generic, TypeVar

import redis

from schemas import Decision, ReviewItem
from worker.intake.log import Partition
from worker.review import bulletin
from worker.review.answers import DeskEvent, Status
from worker.review.index import keys
from worker.review.index.duplicates import Duplicates, fingerprint
from worker.review.index.entry import AT, CLUSTER, DUE, ITEM, Entry, at_field, decision_field, slim
from worker.review.index.leases import DROP
from worker.review.item_state import VOTES
from worker.review.order import due
from worker.review.sampling import AUDIT_QUEUE
from worker.settings import ReviewSettings

KEPT_PANELS: Final = 10_000
KEPT_TIMES: Final = 1_000
HOURS_KEPT_SECONDS: Final = 35 * 24 * 3600
_AT_ONCE: Final = 100
_PURGED_AT_ONCE: Final = 500
_CLOSED: Final = frozenset({Status.APPROVED, Status.REJECTED})

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

    def _changes(self, added: Mapping[str, Mapping[bytes, bytes]]) -> list[tuple["_Change", list[str]]]:
        """What the fields change, as the index is now, and the buckets in which each item lies."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for item_id in added:
                pipeline.hgetall(keys.item(item_id))
            for item_id in added:
                pipeline.hget(keys.near(item_id), "buckets")
            found = pipeline.execute()
        return [
            (_Change(item_id, Entry(before), fields), buckets.decode().split("\n") if buckets else [])
            for (item_id, fields), before, buckets in zip(
                added.items(), found[: len(added)], found[len(added) :], strict=True
            )
        ]


class _Change:
    """What fields of one entry, those that are new, mean for everything else in the index. `after` is the entry as it
    will be."""

    def __init__(self, item_id: str, before: Entry, fields: Mapping[bytes, bytes]) -> None:
        self.item_id = item_id
        self._before = before
        self._new = {name: value for name, value in fields.items() if name not in before.fields}
        after = Entry({**before.fields, **self._new})
        if self._new and after.item is not None and after.state.alone and after.cluster != item_id:
            after = Entry({**after.fields, CLUSTER: item_id.encode()})
        self.after = after

    @property
    def is_new(self) -> bool:
        return bool(self._new)

    @cached_property
    def _counted(self) -> list[Decision]:
        earlier = {decision.decision_id for decision in self._before.state.counted}
        return [decision for decision in self.after.state.counted if decision.decision_id not in earlier]

    def write(self, pipeline: Any, buckets: Sequence[str], quiet: bool) -> None:
        """Queues the commands."""
        if not self._new:
            return
        after = self.after
        pipeline.hset(keys.item(self.item_id), mapping={**self._new, **_only(after.fields, CLUSTER)})
        for decision in self._counted:
            self._count(pipeline, decision)
        if after.item is not None:
            self._place(pipeline, after, after.item, buckets)
            self._settle(pipeline, after.item)
            if self._before.item is None:
                _introduce(pipeline, after.item)
        if not quiet:
            self._tell(pipeline)

    def _place(self, pipeline: Any, after: Entry, item: ReviewItem, buckets: Sequence[str]) -> None:
        queue, state, was, now = item.queue, after.state, self._before.lane, after.lane
        for decision in self._counted:
            pipeline.eval(DROP, 1, keys.PREFIX, self._cluster_before(after), decision.fencing_token, self.item_id)
        if was is not None and was != now:
            pipeline.zrem(keys.lane(was[0], queue, was[1]), self.item_id)
        if now is not None and was != now:
            pipeline.zadd(keys.lane(now[0], queue, now[1]), {self.item_id: after.due})
        if state.status is Status.OPEN:
            pipeline.zadd(keys.waiting(queue), {self.item_id: item.created_at.timestamp()})
        else:
            pipeline.zrem(keys.waiting(queue), self.item_id)
        (pipeline.sadd if now is not None and now[0] == "assigned" else pipeline.srem)(
            keys.assigned(queue), self.item_id
        )
        if self._cluster_before(after) != after.cluster:
            pipeline.srem(keys.cluster(self._cluster_before(after)), self.item_id)
        (pipeline.sadd if now is not None else pipeline.srem)(keys.cluster(after.cluster), self.item_id)
        pipeline.delete(keys.excluded(self.item_id))
        if now is not None and state.excluded:
            pipeline.sadd(keys.excluded(self.item_id), *state.excluded)
        if now is None or state.alone:
            pipeline.delete(keys.near(self.item_id))
            for bucket in buckets:
                pipeline.srem(keys.bucket(bucket), self.item_id)

    def _cluster_before(self, after: Entry) -> str:
        return self._before.cluster if self._before.item is not None else after.cluster

    def _count(self, pipeline: Any, decision: Decision) -> None:
        hour = _hour_of(decision.decided_at)
        if decision.undoes is None:
            pipeline.hincrby(hour, f"{decision.outcome}|{decision.reviewer}", 1)
        else:
            pipeline.hincrby(hour, f"undo|{decision.reviewer}", 1)
            undone = next(earlier for earlier in self.after.state.counted if earlier.decision_id == decision.undoes)
            pipeline.hincrby(_hour_of(undone.decided_at), f"{undone.outcome}|{undone.reviewer}", -1)
        if decision.seconds_spent is not None and decision.decided_with is None and decision.outcome in VOTES:
            pipeline.hincrbyfloat(hour, f"seconds|{decision.reviewer}", decision.seconds_spent)
            pipeline.hincrby(hour, f"timed|{decision.reviewer}", 1)
        pipeline.expire(hour, HOURS_KEPT_SECONDS)
        answer = self.after.state.answer
        if self.after.state.status is Status.GOLD and decision.outcome in VOTES:
            pipeline.hset(keys.gold(decision.reviewer), self.item_id, int(decision.outcome == answer))

    def _settle(self, pipeline: Any, item: ReviewItem) -> None:
        """What counts when an item is settled, and no longer when it is reopened."""
        state = self.after.state
        closed, was_closed = state.status in _CLOSED, self._before.state.status in _CLOSED
        if item.queue == AUDIT_QUEUE:
            (pipeline.sadd if closed else pipeline.srem)(keys.AUDITED, self.item_id)
            (pipeline.sadd if state.status is Status.REJECTED else pipeline.srem)(keys.MISSED, self.item_id)
        if not closed or state.closed_at is None:
            pipeline.zrem(keys.CLOSED, self.item_id)
            return
        pipeline.zadd(keys.CLOSED, {self.item_id: state.closed_at.timestamp()})
        if was_closed and self._before.item is not None:
            return
        pipeline.lpush(keys.RESOLVED, max(0.0, (state.closed_at - item.created_at).total_seconds()))
        pipeline.ltrim(keys.RESOLVED, 0, KEPT_TIMES - 1)
        if len(state.ballots) > 1:
            panel = {ballot.reviewer: ballot.vote for ballot in state.ballots}
            pipeline.lpush(keys.PANELS, json.dumps([panel, "approve" if state.status is Status.APPROVED else "reject"]))
            pipeline.ltrim(keys.PANELS, 0, KEPT_PANELS - 1)

    def _tell(self, pipeline: Any) -> None:
        item, state = self.after.item, self.after.state
        if item is None:
            return
        told: list[tuple[str, datetime, str | None]] = []
        if self._before.item is None:
            told.append(("arrive", item.created_at, None))
        told += [(decision.outcome, decision.decided_at, decision.reviewer) for decision in self._counted]
        if state.closed_at is not None and self._before.state.closed_at is None:
            told.append(("settle", state.closed_at, None))
        for kind, at, actor in told:
            bulletin.publish(pipeline, DeskEvent(kind, at, item.queue, self.item_id, actor, state.status))


def _introduce(pipeline: Any, item: ReviewItem) -> None:
    created = item.created_at.timestamp()
    pipeline.sadd(keys.QUEUES, item.queue)
    pipeline.zadd(keys.NEWEST, {item.item_id: created})
    pipeline.sadd(keys.event(item.event_id), item.item_id)
    if item.content_hash is not None:
        pipeline.sadd(keys.content(item.content_hash), item.item_id)
    hour = _hour_of(item.created_at)
    pipeline.hincrby(hour, "arrived", 1)
    pipeline.expire(hour, HOURS_KEPT_SECONDS)


def _hour_of(at: datetime) -> str:
    return keys.hour(int(at.timestamp()) // 3600 * 3600)


def _only(fields: Mapping[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {name: fields[name]} if name in fields else {}
