"""Settings of the review desk."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from schemas.base import Name
from worker.settings.section import Section


class QueueSettings(Section):
    """How items of a queue are decided."""

    agree: PositiveInt = 1
    """An item is settled when this many votes are equal."""
    votes: PositiveInt = 1
    """Maximum votes of an item."""
    tie: Literal["approve", "reject", "escalate"] = "escalate"
    """What happens to an item with `votes` votes of which fewer than `agree` are equal."""
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of test items (items with a known answer) among those that a reviewer gets."""
    decide_within_minutes: PositiveFloat | None = None
    """How long an item may wait. The alert SluiceReviewQueueLate fires when the oldest item has waited for longer.
    Default: no alert."""

    @model_validator(mode="after")
    def _can_be_settled(self) -> Self:
        if self.agree > self.votes:
            raise ValueError("agree is more than votes, so no item could be settled")
        return self


class WebhookSettings(Section):
    """A receiver of signed HTTP requests."""

    url: str
    """The address that receives the requests."""
    secret: Annotated[SecretStr, Field(min_length=16)]
    """The key that signs each request."""
    sends: Literal["decisions", "verdicts"] = "decisions"
    """`decisions` sends each decision when it can no longer be undone. `verdicts` sends verdicts with one of `actions`,
    up to 100 in a request."""
    actions: Annotated[tuple[Literal["pass", "review", "reject"], ...], Field(min_length=1)] = ("review", "reject")
    """Actions of the verdicts to send."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts on private addresses that may be used."""
    timeout_seconds: PositiveFloat = 10.0
    """Timeout of a request."""
    max_attempts: PositiveInt = 8
    """Maximum attempts to deliver a request."""

    @field_validator("url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s@#]+", url):
            raise ValueError("must be an http(s):// address without credentials or fragment")
        return url


class ReviewSettings(Section):
    """The review desk: leases, order of items, audits and near duplicates.

    Near duplicates: items of one tenant and queue whose features have a cosine of at least `duplicate_cosine` are
    judged together. Measured with mst-lite 0.4.0 on 891 generated images of AGIQA-3K: at 0.975, 9 of 396,495 pairs of
    different images count as near (19 at 0.97, 3 at 0.99). Of edited copies, those that count as near at 0.975 are:
    saved as JPEG 85, 100 %; saved as WebP 80, 92 % (63 % at 0.99); cropped by 2 %, 88 % (27 % at 0.99). Of heavily
    compressed, blurred or shrunk copies only 4 to 9 % do, mostly of images that were blurry already, and of noisy
    copies none, so each of these is judged by itself.
    """

    lease_seconds: PositiveFloat = 120.0
    """An item goes back to its queue when its reviewer's page has sent no heartbeat for this long."""
    undo_seconds: PositiveFloat = 10.0
    """How long a decision can be undone."""
    patience_minutes: PositiveFloat = 10.0
    """An item of priority 100 is due this long after it arrived, an item of priority 0 after 101 times as long. The
    tenant's weight divides that time. Items are given out in the order in which they are due."""
    tenant_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """A tenant's weight in that order. Tenants that are not listed have 1."""
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    """Settings of single queues, by name."""
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    """Share of the passed images that is reviewed in the queue `audit`."""
    audits_per_day: PositiveInt | None = None
    """How many audits to draw in a day: half of them evenly, half where past audits found bad images. `audit_share` is
    then the least probability with which each passed image is drawn. Default: `audit_share` alone."""
    duplicate_cosine: Annotated[float, Field(gt=0, le=1)] = 0.975
    """Similarity from which two items are near duplicates. With 1 only equal files are."""
    keep_closed_days: PositiveInt = 90
    """How long settled items are kept. After that they leave the desk, exports and the topics; open items never do."""
    snapshot_hours: PositiveFloat = 6.0
    """How often the desk writes a snapshot of its items, from which a rebuild starts. Records older than the last two
    snapshots are deleted from the topics once they are kept for nothing else."""
    webhooks: dict[Name, WebhookSettings] = Field(default_factory=dict)

    def queue(self, name: str) -> QueueSettings:
        """The queue's settings, or the defaults."""
        return self.queues.get(name, QueueSettings())
