"""What the API says: items, leases, queues, statistics as JSON."""

from datetime import datetime
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel

from schemas import (
    Decision,
    Failure,
    FileReference,
    HttpReference,
    ImageReference,
    InlineReference,
    Provenance,
    ReviewItem,
    S3Reference,
    Scores,
)
from worker.review.answers import AuditMisses, Found, ItemView, Lease, Share, Statistics
from worker.review.http.image_links import ImageLinks
from worker.review.http.renditions import Rendition


class ImageOut(BaseModel):
    """Links to the image's renditions, valid for some minutes and for this person."""

    thumbnail: str
    screen: str
    native: str
    blurred: str
    frames: str
    """Of an animation: a sheet of frames to play."""


_RENDITIONS: Final = tuple(Rendition(name) for name in ImageOut.model_fields)


class ActOut(BaseModel):
    """Something that was done to an item."""

    decision_id: str
    outcome: str
    resolution: str | None
    by: str
    at: datetime
    labels: tuple[str, ...]
    note: str | None
    seconds_spent: float | None
    undoes: str | None
    """The decision that this one took back."""


class ItemOut(BaseModel):
    """An item as somebody may see it."""

    item_id: str
    event_id: str
    queue: str
    tenant: str
    priority: int
    status: str
    created_at: datetime
    due_at: datetime
    closed_at: datetime | None
    place: str | None
    """Where the image lies, without what may be secret in an address."""
    prompt: str | None
    generator: str | None
    provenance: Provenance | None
    scores: Scores | None
    failure: Failure | None
    labels: tuple[str, ...]
    rule: str
    model: str
    policy: str
    cluster: tuple[str, ...]
    assignee: str | None
    leased_by: str | None
    votes_cast: int
    votes_needed: int
    history: list[ActOut]
    image: ImageOut | None


class LeaseOut(BaseModel):
    """`items` are the item to look at and its near duplicates; a decision with `token` covers them all."""

    queue: str
    item_id: str
    token: int
    expires_at: datetime
    items: list[ItemOut]


class PageOut(BaseModel):
    items: list[ItemOut]
    cursor: str | None


class ShareOut(BaseModel):
    """`share` is `count` of `total`; `low` and `high` bound its 95 % Wilson interval."""

    count: int
    total: int
    share: float | None
    low: float
    high: float


class HourOut(BaseModel):
    hour: datetime
    arrived: int
    approved: int
    rejected: int
    held: int
    flips: int


class ReviewerOut(BaseModel):
    reviewer: str
    approved: int
    rejected: int
    skipped: int
    escalated: int
    undone: int
    seconds_per_item: float | None
    gold: ShareOut
    majority: ShareOut


class AgreementOut(BaseModel):
    first: str
    second: str
    kappa: float


class StatisticsOut(BaseModel):
    hours: list[HourOut]
    reviewers: list[ReviewerOut]
    agreement: list[AgreementOut]
    fleiss_kappa: float | None
    audit_misses: list[AuditMisses]
    resolved_after_seconds: float | None


class ResponseBuilder:
    """Makes answers for one person: image links are theirs alone."""

    def __init__(self, links: ImageLinks, user: str) -> None:
        self._links = links
        self._user = user

    def item(self, view: ItemView) -> ItemOut:
        item = view.item
        return ItemOut(
            item_id=item.item_id,
            event_id=item.event_id,
            queue=item.queue,
            tenant=item.tenant,
            priority=item.priority,
            status=view.status.value,
            created_at=item.created_at,
            due_at=view.due_at,
            closed_at=view.closed_at,
            place=place(item.image),
            prompt=item.prompt,
            generator=item.generator,
            provenance=item.provenance,
            scores=item.scores,
            failure=item.failure,
            labels=item.labels,
            rule=item.rule,
            model=item.model,
            policy=item.policy,
            cluster=view.cluster,
            assignee=view.assignee,
            leased_by=view.leased_by,
            votes_cast=view.votes_cast,
            votes_needed=view.votes_needed,
            history=[_act(decision) for decision in view.history],
            image=self._image(item),
        )

    def lease(self, lease: Lease) -> LeaseOut:
        return LeaseOut(
            queue=lease.queue,
            item_id=lease.item_id,
            token=lease.token,
            expires_at=lease.expires_at,
            items=[self.item(view) for view in lease.items],
        )

    def page(self, found: Found) -> PageOut:
        return PageOut(items=[self.item(view) for view in found.items], cursor=found.cursor)

    def _image(self, item: ReviewItem) -> ImageOut | None:
        if item.image is None:
            return None
        return self.image(item.item_id)

    def image(self, name: str) -> ImageOut:
        """Links to the renditions of what `name` names: an item's id, or a past verdict's."""
        links = self._links.make(name, self._user, _RENDITIONS)
        return ImageOut(**{rendition.value: link for rendition, link in links.items()})

    def heat_map(self, item_id: str) -> str:
        """The link to an item's heat map."""
        return self._links.make(item_id, self._user, [Rendition.HEAT_MAP])[Rendition.HEAT_MAP]


def statistics(answer: Statistics) -> StatisticsOut:
    return StatisticsOut(
        hours=[
            HourOut(
                hour=each.hour,
                arrived=each.arrived,
                approved=each.approved,
                rejected=each.rejected,
                held=each.held,
                flips=each.flips,
            )
            for each in answer.hours
        ],
        reviewers=[
            ReviewerOut(
                reviewer=each.reviewer,
                approved=each.approved,
                rejected=each.rejected,
                skipped=each.skipped,
                escalated=each.escalated,
                undone=each.undone,
                seconds_per_item=each.seconds_per_item,
                gold=share(each.gold),
                majority=share(each.majority),
            )
            for each in answer.reviewers
        ],
        agreement=[
            AgreementOut(first=first, second=second, kappa=kappa)
            for (first, second), kappa in sorted(answer.cohen_kappa.items())
        ],
        fleiss_kappa=answer.fleiss_kappa,
        audit_misses=list(answer.audit_misses),
        resolved_after_seconds=answer.resolved_after_seconds,
    )


def share(answer: Share) -> ShareOut:
    return ShareOut(count=answer.count, total=answer.total, share=answer.share, low=answer.low, high=answer.high)


def place(image: ImageReference | None) -> str | None:
    match image:
        case S3Reference():
            return f"s3://{image.bucket}/{image.key}"
        case HttpReference():
            parts = urlsplit(image.url)
            return f"{parts.scheme}://{parts.hostname}{parts.path}"
        case FileReference():
            return image.path
        case InlineReference():
            return f"inline, {len(image.bytes)} bytes"
    return None


def _act(decision: Decision) -> ActOut:
    return ActOut(
        decision_id=decision.decision_id,
        outcome=decision.outcome,
        resolution=decision.resolution,
        by=decision.reviewer,
        at=decision.decided_at,
        labels=decision.labels,
        note=decision.note,
        seconds_spent=decision.seconds_spent,
        undoes=decision.undoes,
    )
