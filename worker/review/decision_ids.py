"""Ids of decisions on several items: the one looked at has the sender's, its near duplicates one made of that, and what
takes a decision back one made of its own."""

import hashlib

from schemas import Decision


def derived(decision_id: str, item_id: str) -> str:
    """The id of a decision on a near duplicate: always the same one."""
    return f"{decision_id}/{hashlib.sha256(item_id.encode()).hexdigest()[:24]}"


def undoing(decision_id: str) -> str:
    """The id of what takes a decision back: always the same one, so that it counts once however often it is sent."""
    return f"{decision_id}/undo"


def original(decision: Decision) -> str:
    """The sender's id of the decision that this one is, or belongs to."""
    return decision.decision_id if decision.decided_with is None else decision.decision_id.rpartition("/")[0]
