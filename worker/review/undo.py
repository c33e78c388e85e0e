"""Undo of a reviewer's own action."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import redis

from schemas import Decision
from worker.review.answers import Lease, Status
from worker.review.decision_ids import undoing
from worker.review.errors import NotPossible, NotRecorded
from worker.review.index import keys
from worker.review.index.entry import Entry
from worker.review.index.index import Index
from worker.review.index.leases import Leases
from worker.review.item_dispatcher import ItemDispatcher
from worker.review.item_state import objection
from worker.review.recorder import PendingDecision, Recorder
from worker.settings import ReviewSettings


class Undo:
    """See `DeskApi.undo`. Idempotent and thread-safe."""

    def __init__(
        self,
        client: redis.Redis,
        index: Index,
        leases: Leases,
        recorder: Recorder,
        dispatcher: ItemDispatcher,
        settings: ReviewSettings,
        now: Callable[[], datetime],
    ) -> None:
        self._redis = client
        self._index = index
        self._leases = leases
        self._recorder = recorder
        self._dispatcher = dispatcher
        self._settings = settings
        self._now = now

    def undo(self, decision_id: str, reviewer: str) -> Lease:
        covered = self.covered(decision_id)
        token = self._leases.token()
        back: list[Entry] = []
        steps: list[PendingDecision] = []
        refusals: list[str] = []
        for item_id, entry in self._index.entries(list(covered)).items():
            made = next((d for d in entry.state.counted if d.decision_id == covered[item_id]), None)
            if made is None or entry.item is None:
                continue
            undo = self._recorder.decision(
                entry.item, reviewer, "reopen", token, decision_id=undoing(made.decision_id), undoes=made.decision_id
            )
            last = entry.state.counted[-1]
            if (last.decision_id, last.reviewer) == (undo.decision_id, reviewer):
                back.append(entry)  # sent again: who asked did not hear that it was done
            elif why := self._not_undoable(entry, made, undo):
                refusals.append(why)
            else:
                back.append(entry)
                steps.append(PendingDecision(entry, entry.item, undo))
        if not back:
            why = refusals[0] if refusals else "nothing is known of it any more"
            raise NotPossible(f"the decision cannot be undone: {why}")
        return self._taken_back(back, steps, reviewer) if steps else self._still_leased(back[0], reviewer)

    def covered(self, decision_id: str) -> dict[str, str]:
        """Item id to the id of the decision on it, for all items that a decision covered."""
        found: Any = self._redis.hgetall(keys.decided(decision_id))
        return {item_id.decode(): own_id.decode() for item_id, own_id in found.items()}

    def _not_undoable(self, entry: Entry, made: Decision, undo: Decision) -> str | None:
        if any(earlier.decision_id == undo.decision_id for earlier in entry.state.counted):
            return "it has been taken back already"
        if self._now() - made.decided_at > timedelta(seconds=self._settings.undo_seconds):
            return f"that is possible for {self._settings.undo_seconds:g} seconds; ask a lead to reopen it"
        if made.outcome == "skip" and self._held_by_another(entry, made.reviewer):
            return "somebody else has the item at the moment"
        return objection(entry.state, undo)

    def _held_by_another(self, entry: Entry, reviewer: str) -> bool:
        token: Any = self._redis.get(keys.job(entry.cluster))
        return self._leases.holders([token])[0] not in (None, reviewer)

    def _taken_back(self, back: Sequence[Entry], steps: Sequence[PendingDecision], reviewer: str) -> Lease:
        items = [entry.item.item_id for entry in back if entry.item is not None]
        first = steps[0]
        # Leased before it is open again, so that nobody else gets it in between.
        grant = self._leases.grant(first.entry.cluster, first.item.queue, reviewer, items)
        try:
            state = self._recorder.commit(steps, reviewer, action="undo")[first.item.item_id]
        except NotRecorded:
            self._leases.end(grant.token, reviewer)
            raise
        if all(decision.decision_id != first.decision.decision_id for decision in state.counted):
            self._leases.end(grant.token, reviewer)
            raise NotPossible("the decision cannot be undone: something else was done to the item at the same moment")
        return self._dispatcher.shown([grant], reviewer, blind=state.status is not Status.ESCALATED)[0]

    def _still_leased(self, entry: Entry, reviewer: str) -> Lease:
        """The lease that the undo granted, or a new one when that has expired."""
        item = entry.item
        if item is None or entry.lane is None:
            raise NotPossible("the item is no longer open")
        blind = entry.state.status is not Status.ESCALATED
        grant = self._leases.current(entry.cluster, reviewer, item.item_id)
        if grant is not None:
            return self._dispatcher.shown([grant], reviewer, blind=blind)[0]
        lease = self._dispatcher.take(entry, item, reviewer)
        if lease is None:
            raise NotPossible(
                "the decision was taken back; its lease has run out since, and somebody else has the item"
            )
        return lease
