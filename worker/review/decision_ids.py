"""Ids of decisions on several items. The item on screen gets the sender's id, each near duplicate an id derived from
it, and an undo an id derived from the decision's."""

import hashlib

from schemas import Decision


def derived(decision_id: str, item_id: str) -> str:
    """The id of the decision on a near duplicate; deterministic."""
    return f"{decision_id}/{hashlib.sha256(item_id.encode()).hexdigest()[:24]}"


def undoing(decision_id: str) -> str:
    """The id of the undo of a decision; deterministic, so an undo that is sent again counts once."""
    return f"{decision_id}/undo"


def original(decision: Decision) -> str:
    """The sender's id of the decision that this one is, or belongs to."""
    return decision.decision_id if decision.decided_with is None else decision.decision_id.rpartition("/")[0]
