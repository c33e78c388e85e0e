"""What is counted in the index: the work of each hour, test items, agreement. All of it follows from the decisions that
count, each in the state that it met, so that an index built anew counts the same."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from schemas import Decision, ReviewItem
from worker.review.answers import Status
from worker.review.index import keys
from worker.review.item_state import CLOSED, VOTES, ItemState, after
from worker.review.sampling import AUDIT_QUEUE

HOURS_KEPT_SECONDS: Final = 35 * 24 * 3600


def met(state: ItemState) -> Iterator[tuple[ItemState, Decision]]:
    """The decisions that made this state, oldest first, each with the state before it."""
    before = ItemState()
    for decision in state.counted:
        yield before, decision
        before = after(before, decision)


def count_arrival(pipeline: Any, item: ReviewItem) -> None:
    """Queues the commands."""
    _add(pipeline, item.created_at, "arrived", 1)


def count_decision(pipeline: Any, before: ItemState, decision: Decision) -> None:
    """Queues the commands for a decision that met the state `before`."""
    if decision.undoes is None:
        _tally(pipeline, before, decision, 1)
    else:
        _add(pipeline, decision.decided_at, f"undo|{decision.reviewer}", 1)
        if before.before_last_action is not None:
            _tally(pipeline, before.before_last_action, before.counted[-1], -1)
    if decision.seconds_spent is not None and decision.decided_with is None and decision.outcome in VOTES:
        hour = _hour_of(decision.decided_at)
        pipeline.hincrbyfloat(hour, f"seconds|{decision.reviewer}", decision.seconds_spent)
        pipeline.hincrby(hour, f"timed|{decision.reviewer}", 1)


def count_settling(pipeline: Any, item: ReviewItem, state: ItemState) -> None:
    """What counts while an item is settled, and no longer when it is reopened. Queues the commands."""
    closed = state.status in CLOSED
    if item.queue == AUDIT_QUEUE:
        (pipeline.sadd if closed else pipeline.srem)(keys.AUDITED, item.item_id)
        (pipeline.sadd if state.status is Status.REJECTED else pipeline.srem)(keys.MISSED, item.item_id)
    if not closed or state.closed_at is None:
        pipeline.zrem(keys.CLOSED, item.item_id)
        pipeline.hdel(keys.SETTLED_AFTER, item.item_id)
        pipeline.hdel(keys.PANELS, item.item_id)
        return
    pipeline.zadd(keys.CLOSED, {item.item_id: state.closed_at.timestamp()})
    waited = max(0.0, (state.closed_at - item.created_at).total_seconds())
    pipeline.hset(keys.SETTLED_AFTER, item.item_id, repr(waited))
    if len(state.ballots) > 1:
        panel = {ballot.reviewer: ballot.vote for ballot in state.ballots}
        outcome = "approve" if state.status is Status.APPROVED else "reject"
        pipeline.hset(keys.PANELS, item.item_id, json.dumps([panel, outcome]))


def _tally(pipeline: Any, before: ItemState, decision: Decision, by: int) -> None:
    at, reviewer = decision.decided_at, decision.reviewer
    _add(pipeline, at, f"{decision.outcome}|{reviewer}", by)
    if decision.outcome not in VOTES:
        return
    if before.status is Status.GOLD:
        gold = keys.gold(reviewer)
        if by > 0:
            pipeline.hset(gold, decision.item_id, int(decision.outcome == before.answer))
        else:
            pipeline.hdel(gold, decision.item_id)
    elif decision.queue != AUDIT_QUEUE:  # what is audited had passed
        _add(pipeline, at, f"held|{reviewer}", by)
        if decision.outcome == "approve":
            _add(pipeline, at, f"flip|{reviewer}", by)


def _add(pipeline: Any, at: datetime, field: str, by: int) -> None:
    pipeline.hincrby(_hour_of(at), field, by)
    pipeline.expire(_hour_of(at), HOURS_KEPT_SECONDS)


def _hour_of(at: datetime) -> str:
    return keys.hour(int(at.timestamp()) // 3600 * 3600)
