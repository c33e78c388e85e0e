"""What a list of decisions makes of an item: pure, so that the index can be made again from the topics at any time."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from schemas import Decision, Vote
from worker.review.answers import Status

VOTES = frozenset({"approve", "reject"})
UNDOABLE = VOTES | {"skip", "hold", "escalate"}
"""What its reviewer can take back."""
CLOSED = frozenset({Status.APPROVED, Status.REJECTED})
_UNSETTLED = frozenset({Status.OPEN, Status.ESCALATED, Status.GOLD})
_POSSIBLE = {
    "approve": _UNSETTLED,
    "reject": _UNSETTLED,
    "skip": _UNSETTLED,
    "hold": frozenset({Status.OPEN, Status.ESCALATED, Status.GOLD}),
    "escalate": frozenset({Status.OPEN, Status.HELD, Status.GOLD}),
    "assign": frozenset({Status.OPEN}),
    "reopen": frozenset(Status) - {Status.OPEN},
    "split": frozenset(Status),
    "gold": frozenset(Status),
}
"""In which states an outcome counts."""


@dataclass(frozen=True, slots=True)
class Ballot:
    reviewer: str
    vote: Vote


@dataclass(frozen=True, slots=True)
class ItemState:
    """Where an item stands after the decisions `counted`, oldest first.

    `fence` is the highest token among them: what comes with one that is not higher comes too late.
    """

    status: Status = Status.OPEN
    ballots: tuple[Ballot, ...] = ()
    skipped_by: frozenset[str] = frozenset()
    assignee: str | None = None
    alone: bool = False
    """Never judged together with near duplicates."""
    answer: Vote | None = None
    """What a gold item's answer is known to be."""
    closed_at: datetime | None = None
    fence: int = 0
    counted: tuple[Decision, ...] = ()
    before_last_action: "ItemState | None" = None
    """The state to return to when the last decision, if it is one that can be undone, is taken back."""

    @property
    def voters(self) -> frozenset[str]:
        """Who may not vote again. An escalated item waits for a last word, which may be that of somebody who voted."""
        return frozenset() if self.status is Status.ESCALATED else frozenset(b.reviewer for b in self.ballots)

    @property
    def excluded(self) -> frozenset[str]:
        """Reviewers who do not get the item."""
        return self.skipped_by | self.voters


def objection(state: ItemState, decision: Decision) -> str | None:
    """Why the decision does not count in this state; None when it does."""
    if any(decision.decision_id == earlier.decision_id for earlier in state.counted):
        return "this decision has been counted already"
    if decision.fencing_token <= state.fence:
        return "something else has been done to the item since it was leased"
    if decision.outcome == "reopen" and decision.undoes is not None:
        last = state.counted[-1] if state.counted else None
        if last is None or last.decision_id != decision.undoes or state.before_last_action is None:
            return "something else has been done to the item since, so the decision cannot be undone"
        if last.reviewer != decision.reviewer:
            return "only who made a decision can undo it"
        return None
    if state.status not in _POSSIBLE[decision.outcome]:
        return f"the item is {state.status}, so there is nothing to {decision.outcome}"
    if decision.outcome in VOTES and decision.reviewer in state.voters:
        return f"{decision.reviewer} has voted on the item already"
    if decision.outcome == "assign" and decision.assignee in state.voters:
        return f"{decision.assignee} has voted on the item already; assign it to somebody else"
    if decision.outcome == "gold" and decision.resolution not in VOTES:
        return "a gold item needs an answer: approve or reject"
    return None


def after(state: ItemState, decision: Decision) -> ItemState:
    """The state with the decision; the very same one when it does not count."""
    if objection(state, decision) is not None:
        return state
    counted = replace(_changed(state, decision), fence=decision.fencing_token, counted=(*state.counted, decision))
    if decision.outcome in UNDOABLE:
        return replace(counted, before_last_action=replace(state, before_last_action=None))
    return replace(counted, before_last_action=None)


def fold(decisions: Iterable[Decision]) -> ItemState:
    """The state after these decisions, in the order of the log."""
    state = ItemState()
    for decision in decisions:
        state = after(state, decision)
    return state


def _changed(state: ItemState, decision: Decision) -> ItemState:
    match decision.outcome:
        case "approve" | "reject":
            return _voted(state, decision, decision.outcome)
        case "hold" | "escalate" if state.status is Status.GOLD:
            # A test item must not be told from others: the reviewer does not get it again, and it goes on testing.
            return replace(state, skipped_by=state.skipped_by | {decision.reviewer})
        case "skip":
            # who skipped does not get it again: an assignment that lasted would keep the item from all others
            assignee = None if state.assignee == decision.reviewer else state.assignee
            return replace(state, skipped_by=state.skipped_by | {decision.reviewer}, assignee=assignee)
        case "hold":
            return replace(state, status=Status.HELD)
        case "escalate":
            return replace(state, status=Status.ESCALATED, assignee=None)
        case "assign":
            return replace(state, assignee=decision.assignee, skipped_by=state.skipped_by - {decision.assignee or ""})
        case "split":
            return replace(state, alone=True)
        case "gold":
            answer: Vote = "approve" if decision.resolution == "approve" else "reject"
            return replace(state, status=Status.GOLD, answer=answer, ballots=(), closed_at=None, assignee=None)
        case "reopen":
            if decision.undoes is not None and state.before_last_action is not None:
                return state.before_last_action
            return replace(state, status=Status.OPEN, ballots=(), answer=None, closed_at=None, assignee=None)


def _voted(state: ItemState, decision: Decision, vote: Vote) -> ItemState:
    ballots = (*state.ballots, Ballot(decision.reviewer, vote))
    if state.status is Status.GOLD:
        return replace(state, ballots=ballots)
    # who voted cannot vote again: an assignment that lasted would keep the item from all others
    voted = replace(state, ballots=ballots, assignee=None)
    match decision.resolution:
        case "approve":
            return replace(voted, status=Status.APPROVED, closed_at=decision.decided_at)
        case "reject":
            return replace(voted, status=Status.REJECTED, closed_at=decision.decided_at)
        case "escalate":
            return replace(voted, status=Status.ESCALATED)
        case None:
            return voted
