"""What the desk answers with, and what it is asked with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Literal

from schemas import Decision, Resolution, ReviewItem, Vote

Action = Literal[Vote, "skip", "hold", "escalate"]
"""What a reviewer does to a leased item: a vote, or one of the ways not to vote."""


class Status(StrEnum):
    """Where an item stands."""

    OPEN = "open"
    ESCALATED = "escalated"
    """Waits for a lead."""
    HELD = "held"
    """Set aside until somebody reopens it."""
    APPROVED = "approved"
    REJECTED = "rejected"
    GOLD = "gold"
    """Its answer is known; it is shown to test reviewers, to whom it looks open."""


@dataclass(frozen=True, slots=True)
class ItemView:
    """An item as somebody may see it. `item` comes without its features."""

    item: ReviewItem
    status: Status
    due_at: datetime
    cluster: tuple[str, ...]
    """Ids of the open items that are judged together with it, itself among them."""
    assignee: str | None
    leased_by: str | None
    votes_cast: int
    votes_needed: int
    """Equal votes that settle it."""
    closed_at: datetime | None
    history: tuple[Decision, ...]
    """What was done to it and counted, oldest first; without others' votes for whom they must not sway."""


@dataclass(frozen=True, slots=True)
class Lease:
    """An item that is one reviewer's for a while. `items` are it and its near duplicates: what a decision covers."""

    queue: str
    reviewer: str
    token: int
    """The fencing token: good for one act."""
    expires_at: datetime
    items: tuple[ItemView, ...]

    @property
    def item_id(self) -> str:
        """The item to look at."""
        return self.items[0].item.item_id


@dataclass(frozen=True, slots=True)
class Choice:
    """What a reviewer does to a leased item. Idempotent by `decision_id`."""

    item_id: str
    token: int
    decision_id: str
    outcome: Action
    labels: tuple[str, ...] = ()
    note: str | None = None
    seconds_spent: float | None = None
    decided_at: datetime | None = None
    """When it was decided elsewhere, for a vote that is imported; absent: now. A later time than now counts as now."""


@dataclass(frozen=True, slots=True)
class Decided:
    """The log has the decision. `resolution` is what the item came to; None while it needs more votes."""

    decision_id: str
    item_ids: tuple[str, ...]
    resolution: Resolution | None
    undo_until: datetime


@dataclass(frozen=True, slots=True)
class QueueOverview:
    """A queue in numbers, of items. `leased` ones are counted among the open."""

    name: str
    open: int
    leased: int
    escalated: int
    held: int
    assigned: int
    oldest_at: datetime | None
    """When the open item that waits longest came."""
    overdue: int
    """Open items past the time they were due."""
    agree: int
    votes: int
    decide_by: datetime | None = None
    """By when that item must be decided; None without such an item, or where the settings give the queue no time."""


@dataclass(frozen=True, slots=True)
class Query:
    """What to look for, and in which order; what is None does not matter.

    `text` are words, each of which must be in the prompt, the ids or a note; one of three letters or more may also be
    the beginning of a word. `since` and `until` bound when the item came, the latter exclusively. `outcome` is that of
    any decision on the item.
    """

    queue: str | None = None
    status: Status | None = None
    tenant: str | None = None
    reviewer: str | None = None
    label: str | None = None
    event_id: str | None = None
    content_hash: str | None = None
    text: str | None = None
    oldest_first: bool = False
    generator: str | None = None
    outcome: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    min_quality: float | None = None
    max_quality: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A page of results. `cursor` fetches the next one; None at the end."""

    items: tuple[ItemView, ...]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Share:
    """`count` of `total`, with a 95 % interval of the share."""

    count: int
    total: int
    low: float
    high: float

    @property
    def share(self) -> float | None:
        return self.count / self.total if self.total else None


@dataclass(frozen=True, slots=True)
class ReviewerStatistics:
    """One reviewer's work in the window."""

    reviewer: str
    approved: int
    rejected: int
    skipped: int
    escalated: int
    undone: int
    seconds_per_item: float | None
    """Mean of what the page measured; None where it measured nothing."""
    gold: Share
    """Right answers among items whose answer is known (since the index began)."""
    majority: Share
    """Votes that were those of the settled item, where several people voted (the newest ones)."""


@dataclass(frozen=True, slots=True)
class HourOfWork:
    """Starts at `hour`. `approved` and `rejected` count all votes, `held` those on images that the policy held back,
    which audited ones and test items are not. `flips` of these are approvals: the policy wanted a look, and people
    found nothing wrong."""

    hour: datetime
    arrived: int
    approved: int
    rejected: int
    held: int
    flips: int


@dataclass(frozen=True, slots=True)
class AuditMisses:
    """What audits say of the images of a tenant that passed under the model and the policy which judged last.

    Of `drawn` images `audited` are settled, and `missed` of these should not have passed. `share` estimates the share
    of bad images among all that passed: audits are weighted, so it is not `missed` / `audited`. None without audits.
    `low` and `high` bound the true share, at all times together with a confidence of 95 %.
    """

    tenant: str
    model: str
    policy: str
    since: datetime
    drawn: int
    audited: int
    missed: int
    share: float | None
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Statistics:
    """The desk in numbers. `hours` are in order; hours without work are there too."""

    hours: tuple[HourOfWork, ...]
    reviewers: tuple[ReviewerStatistics, ...]
    cohen_kappa: Mapping[tuple[str, str], float]
    """Agreement of each two reviewers who judged enough of the same items."""
    fleiss_kappa: float | None
    """Agreement of all, over items with equally many votes; None where there are too few."""
    audit_misses: tuple[AuditMisses, ...]
    """By tenant."""
    resolved_after_seconds: float | None
    """Median time from an item's coming to its settling, of those settled last."""


@dataclass(frozen=True, slots=True)
class DeskEvent:
    """Something happened. `kind` is a decision's outcome, `lease`, `release`, `arrive` or `settle`."""

    kind: str
    at: datetime
    queue: str
    item_id: str
    actor: str | None = None
    status: Status | None = None
