"""Chooses which items a reviewer gets, and leases them."""

import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import redis

from schemas import ReviewItem
from worker.intake.log import LogError
from worker.review import desk_events
from worker.review.answers import DeskEvent, Lease
from worker.review.index import keys
from worker.review.index.entry import Entry
from worker.review.index.index import Index
from worker.review.index.leases import Grant, Leases
from worker.review.recorder import AuditRecord, Recorder
from worker.review.view import Views
from worker.settings import ReviewSettings


class ItemDispatcher:
    """Every lease that it gives is in the audit topic first. Thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        index: Index,
        leases: Leases,
        recorder: Recorder,
        views: Views,
        settings: ReviewSettings,
        now: Callable[[], datetime],
    ) -> None:
        self._redis = client
        self._index = index
        self._leases = leases
        self._recorder = recorder
        self._views = views
        self._settings = settings
        self._now = now

    def lease(self, queue: str, reviewer: str, count: int, *, escalated: bool, skipped: bool) -> list[Lease]:
        """Up to `count` items: those assigned to the reviewer first, then test items by their share, then those due
        first. Or only escalated ones, or only those that the reviewer skipped. Raises NotReady, LogError."""
        if skipped:
            grants = self._skipped(queue, reviewer, count)
        elif escalated:
            grants = self._leases.next([keys.lane("escalated", queue)], queue, reviewer, count)
        elif not self._settings.queue(queue).gold_share:
            lanes = [keys.lane("assigned", queue, reviewer), keys.lane("open", queue)]
            grants = self._leases.next(lanes, queue, reviewer, count)
        else:
            grants = self._leases.next([keys.lane("assigned", queue, reviewer)], queue, reviewer, count)
            gold = sum(self._is_gold_turn(queue, reviewer) for _ in range(count - len(grants)))
            if gold:
                grants += self._leases.next([keys.lane("gold", queue)], queue, reviewer, gold)
            if len(grants) < count:
                grants += self._leases.next([keys.lane("open", queue)], queue, reviewer, count - len(grants))
        return self._handed_out(grants, reviewer, blind=not escalated)

    def take(self, entry: Entry, item: ReviewItem, reviewer: str) -> Lease | None:
        """That very item; None when somebody else has it. Raises NotReady, LogError."""
        if entry.lane is None:
            return None
        name, assignee = entry.lane
        grant = self._leases.take(keys.lane(name, item.queue, assignee), item.queue, reviewer, item.item_id)
        return None if grant is None else self._handed_out([grant], reviewer, blind=name != "escalated")[0]

    def shown(self, grants: Sequence[Grant], reviewer: str, *, blind: bool) -> list[Lease]:
        """Grants as leases, with their items; `blind`: without what must not sway the reviewer."""
        items = [item_id for grant in grants for item_id in grant.items]
        views = {view.item.item_id: view for view in self._views.of(items, blind_to=reviewer if blind else None)}
        return [
            Lease(
                grant.queue, reviewer, grant.token, grant.expires_at, tuple(views[i] for i in grant.items if i in views)
            )
            for grant in grants
        ]

    def _handed_out(self, grants: Sequence[Grant], reviewer: str, *, blind: bool) -> list[Lease]:
        if not grants:
            return []
        try:
            self._recorder.note([AuditRecord(reviewer, "lease", grant.items) for grant in grants])
        except LogError:
            for grant in grants:
                self._leases.end(grant.token, reviewer)
            raise
        leases = self.shown(grants, reviewer, blind=blind)
        now = self._now()
        desk_events.publish(
            self._redis, *(DeskEvent("lease", now, each.queue, each.items[0], reviewer) for each in grants)
        )
        return leases

    def _is_gold_turn(self, queue: str, reviewer: str) -> bool:
        """Whether this reviewer's next item is a test item. Pseudo-random by the reviewer's count, so that the order
        does not reveal test items."""
        share = self._settings.queue(queue).gold_share
        turn = self._redis.incr(keys.turn(reviewer))
        point = hashlib.sha256(f"sluice.gold\0{reviewer}\0{turn}".encode()).digest()[:8]
        return int.from_bytes(point, "big") < share * 2**64

    def _skipped(self, queue: str, reviewer: str, count: int) -> list[Grant]:
        """Leases of open items that this reviewer skipped, due first."""
        found: Any = self._redis.zrange(keys.skipped(queue, reviewer), 0, -1)
        grants: list[Grant] = []
        for item_id, entry in self._index.entries([each.decode() for each in found]).items():
            if len(grants) >= count:
                break
            if entry.lane is None or entry.lane[1] not in ("", reviewer):
                continue
            grant = self._leases.take(keys.lane(entry.lane[0], queue, entry.lane[1]), queue, reviewer, item_id)
            if grant is not None:
                grants.append(grant)
        return grants
