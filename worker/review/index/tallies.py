"""What is counted in the index: the work of each hour, test items, agreement. All of it follows from the decisions that
count, each in the state that it met, so that a rebuilt index has the same counts.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Final

from schemas import Decision, ReviewItem
from worker.review.answers import Status
from worker.review.index import keys
from worker.review.index.writes import Writes
from worker.review.item_state import CLOSED, VOTES, ItemState, after
from worker.review.sampling import AUDIT_QUEUE

HOURS_KEPT_SECONDS: Final = 35 * 24 * 3600


def met(state: ItemState) -> Iterator[tuple[ItemState, Decision]]:
    """The decisions that made this state, oldest first, each with the state before it."""
    before = ItemState()
    for decision in state.counted:
        yield before, decision
        before = after(before, decision)


def count_arrival(writes: Writes, item: ReviewItem) -> None:
    _add(writes, item.created_at, "arrived", 1)


def count_decision(writes: Writes, before: ItemState, decision: Decision) -> None:
    """Counts a decision that met the state `before`."""
    if decision.undoes is None:
        _tally(writes, before, decision, 1)
    else:
        _add(writes, decision.decided_at, f"undo|{decision.reviewer}", 1)
        if before.before_last_action is not None:
            _tally(writes, before.before_last_action, before.counted[-1], -1)
    if decision.seconds_spent is not None and decision.decided_with is None and decision.outcome in VOTES:
        hour = _hour_of(decision.decided_at)
        writes.sum(hour, f"seconds|{decision.reviewer}", decision.seconds_spent)
        writes.count(hour, f"timed|{decision.reviewer}", 1)


def count_settling(writes: Writes, item: ReviewItem, state: ItemState, before: ItemState) -> None:
    """What counts while an item is settled, and no longer when it is reopened. `before` is its former state."""
    item_id, closed_at = item.item_id, state.closed_at
    if state.status in CLOSED and closed_at is not None:
        writes.score(keys.CLOSED, item_id, closed_at.timestamp())
        writes.field(keys.SETTLED_AFTER, item_id, repr(max(0.0, (closed_at - item.created_at).total_seconds())))
        panel = None
        if len(state.ballots) > 1:
            votes = {ballot.reviewer: ballot.vote for ballot in state.ballots}
            panel = json.dumps([votes, "approve" if state.status is Status.APPROVED else "reject"])
        writes.field(keys.PANELS, item_id, panel)
    elif before.status in CLOSED:
        writes.score(keys.CLOSED, item_id, None)
        writes.field(keys.SETTLED_AFTER, item_id, None)
        writes.field(keys.PANELS, item_id, None)


def _tally(writes: Writes, before: ItemState, decision: Decision, by: int) -> None:
    at, reviewer = decision.decided_at, decision.reviewer
    _add(writes, at, f"{decision.outcome}|{reviewer}", by)
    if decision.outcome not in VOTES:
        return
    if before.status is Status.GOLD:
        # The first answer counts: who takes it back and gives another one may have been told.
        if by > 0 and not _has_answered(before, reviewer):
            right = decision.outcome == before.answer
            writes.field(keys.gold(reviewer), decision.item_id, str(int(right)))
    elif decision.queue != AUDIT_QUEUE:  # what is audited had passed
        _add(writes, at, f"held|{reviewer}", by)
        if decision.outcome == "approve":
            _add(writes, at, f"flip|{reviewer}", by)


def _has_answered(state: ItemState, reviewer: str) -> bool:
    """Whether the reviewer has voted on the test item since it became one, be it that they took that back."""
    since = max((place for place, made in enumerate(state.counted) if made.outcome == "gold"), default=-1) + 1
    return any(made.reviewer == reviewer and made.outcome in VOTES for made in state.counted[since:])


def _add(writes: Writes, at: datetime, field: str, by: int) -> None:
    writes.count(_hour_of(at), field, by)
    writes.expire(_hour_of(at), HOURS_KEPT_SECONDS)


def _hour_of(at: datetime) -> str:
    return keys.hour(int(at.timestamp()) // 3600 * 3600)
