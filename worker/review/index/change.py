"""The changes to the rest of the index that follow from new records of an entry."""

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from schemas import Decision, ReviewItem
from worker.review import desk_events
from worker.review.answers import DeskEvent, Status
from worker.review.decision_ids import original
from worker.review.index import keys, tallies
from worker.review.index.entry import AT, CLUSTER, Entry, alone_cluster, place_of
from worker.review.index.leases import DROP
from worker.review.index.writes import Writes
from worker.review.item_state import UNDOABLE, ItemState

REPEATABLE_SECONDS: Final = 3600
"""How long an action can be repeated or undone by its id: the items that it covered are kept for so long."""
ITEMLESS_SECONDS: Final = 24 * 3600
"""How long decisions are kept whose item is not there; one that was compacted never comes."""


class Change:
    """Fields of one entry, those that are new, and the commands that follow. `after` is the entry as it will be."""

    def __init__(self, item_id: str, before: Entry, fields: Mapping[bytes, bytes]) -> None:
        self.item_id = item_id
        self._before = before
        self._new = {name: value for name, value in fields.items() if name not in before.fields}
        if _is_later(fields.get(AT), before.fields.get(AT)):
            self._new[AT] = fields[AT]
        after = Entry({**before.fields, **self._new})
        if self._new and after.item is not None and after.state.alone and after.cluster != alone_cluster(item_id):
            after = Entry({**after.fields, CLUSTER: alone_cluster(item_id).encode()})
        self.after = after

    @property
    def is_new(self) -> bool:
        return bool(self._new)

    @cached_property
    def _counted(self) -> list[tuple[ItemState, Decision]]:
        """The decisions that count from now on, each with the state that it met."""
        earlier = {decision.decision_id for decision in self._before.state.counted}
        return [(met, made) for met, made in tallies.met(self.after.state) if made.decision_id not in earlier]

    def write(self, pipeline: Any, writes: Writes, quiet: bool) -> None:
        """Queues the commands, those in `writes` that go together with other items'. `quiet` as for Index.load."""
        if not self._new:
            return
        after = self.after
        key = keys.item(self.item_id)
        pipeline.hset(key, mapping={**self._new, **_only(after.fields, CLUSTER)})
        if after.item is None:
            pipeline.expire(key, ITEMLESS_SECONDS)
        elif self._before.fields and self._before.item is None:
            pipeline.persist(key)
        for met, decision in self._counted:
            tallies.count_decision(writes, met, decision)
        if after.item is not None:
            self._place(pipeline, writes, after, after.item)
            tallies.count_settling(writes, after.item, after.state, self._before.state)
            if self._before.item is None:
                writes.member(keys.QUEUES, after.item.queue, True)
                tallies.count_arrival(writes, after.item)
        if not quiet:
            self._remember(pipeline)
            self._tell(pipeline)

    def _place(self, pipeline: Any, writes: Writes, after: Entry, item: ReviewItem) -> None:
        queue, state, was, now = item.queue, after.state, self._before.lane, after.lane
        is_new = self._before.item is None
        for _, decision in self._counted:
            pipeline.eval(DROP, 1, keys.PREFIX, self._cluster_before(after), decision.fencing_token, self.item_id)
        if was is not None and was != now:
            writes.score(keys.lane(was[0], queue, was[1]), self.item_id, None)
        if now is not None and was != now:
            writes.score(keys.lane(now[0], queue, now[1]), self.item_id, after.due)
        if state.status is Status.OPEN or not is_new:
            came = item.created_at.timestamp()
            writes.score(keys.waiting(queue), self.item_id, came if state.status is Status.OPEN else None)
        is_assigned = now is not None and now[0] == "assigned"
        if is_assigned or (was is not None and was[0] == "assigned"):
            writes.member(keys.assigned(queue), self.item_id, is_assigned)
        before = self._cluster_before(after)
        if before != after.cluster:
            writes.member(keys.cluster(before), self.item_id, False)
        if now is not None or not is_new:
            writes.member(keys.cluster(after.cluster), self.item_id, now is not None)
        if not is_new:
            pipeline.delete(keys.excluded(self.item_id))
        if now is not None and state.excluded:
            pipeline.sadd(keys.excluded(self.item_id), *state.excluded)
        self._note_skips(writes, after, queue)
        closed, is_closed = _closed_to(self._before, queue), _closed_to(after, queue)
        for key in closed ^ is_closed:
            writes.score(key, self.item_id, after.due if key in is_closed else None)

    def _note_skips(self, writes: Writes, after: Entry, queue: str) -> None:
        before, now = _skipped_by(self._before), _skipped_by(after)
        for reviewer in before ^ now:
            writes.score(keys.skipped(queue, reviewer), self.item_id, after.due if reviewer in now else None)

    def _cluster_before(self, after: Entry) -> str:
        return self._before.cluster if self._before.item is not None else after.cluster

    def _remember(self, pipeline: Any) -> None:
        """Which items an action covered. In the transaction of the index: neither is ever there without the other."""
        for _, decision in self._counted:
            if decision.outcome in UNDOABLE:
                known = keys.decided(original(decision))
                pipeline.hset(known, self.item_id, decision.decision_id)
                pipeline.expire(known, REPEATABLE_SECONDS)

    def _tell(self, pipeline: Any) -> None:
        item, state = self.after.item, self.after.state
        if item is None:
            return
        told: list[tuple[str, datetime, str | None]] = []
        if self._before.item is None:
            told.append(("arrive", item.created_at, None))
        told += [(decision.outcome, decision.decided_at, decision.reviewer) for _, decision in self._counted]
        if state.closed_at is not None and self._before.state.closed_at is None:
            told.append(("settle", state.closed_at, None))
        for kind, at, actor in told:
            desk_events.queue(pipeline, DeskEvent(kind, at, item.queue, self.item_id, actor, state.status))


def _closed_to(entry: Entry, queue: str) -> frozenset[str]:
    """The keys under which the item is closed to reviewers in the lane in which it waits."""
    if entry.lane is None or not entry.state.excluded:
        return frozenset()
    lane = keys.lane(entry.lane[0], queue, entry.lane[1])
    return frozenset(keys.closed_to(lane, reviewer) for reviewer in entry.state.excluded)


def _skipped_by(entry: Entry) -> frozenset[str]:
    """Reviewers who skipped the item and can still come back to it."""
    return frozenset() if entry.lane is None else entry.state.skipped_by - entry.state.voters


def _is_later(place: bytes | None, known: bytes | None) -> bool:
    """Whether an item's record stands at a later place than the one that is known: the earlier one may be deleted."""
    if place is None or known is None or place == known:
        return False
    (partition, offset), (known_partition, known_offset) = place_of(place), place_of(known)
    return partition != known_partition or offset > known_offset


def _only(fields: Mapping[bytes, bytes], name: bytes) -> dict[bytes, bytes]:
    return {name: fields[name]} if name in fields else {}
