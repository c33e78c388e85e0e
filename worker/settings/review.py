"""The review desk: how queues are judged, what is due first, where decisions go."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator, model_validator

from schemas.base import Name
from worker.settings.section import Section


class QueueSettings(Section):
    """How a queue is judged: `agree` equal votes of at most `votes` settle an item, and `tie` is what it comes to when
    that many do not agree. `gold_share` of what a reviewer gets are items whose answer is known."""

    agree: PositiveInt = 1
    votes: PositiveInt = 1
    tie: Literal["approve", "reject", "escalate"] = "escalate"
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    decide_within_minutes: PositiveFloat | None = None
    """How long an item may wait. The alert SluiceReviewQueueLate fires when the oldest one has waited for longer."""

    @model_validator(mode="after")
    def _can_be_settled(self) -> Self:
        if self.agree > self.votes:
            raise ValueError("agree is more than votes, so that no item could ever be settled")
        return self


class WebhookSettings(Section):
    """A receiver of signed HTTP requests. `secret` signs them. `sends: decisions` posts each decision when it can no
    longer be undone; `sends: verdicts` posts verdicts whose action is one of `actions`, up to 100 in a request. Hosts
    on private addresses must be listed in `allowed_hosts`."""

    url: str
    secret: Annotated[SecretStr, Field(min_length=16)]
    sends: Literal["decisions", "verdicts"] = "decisions"
    actions: Annotated[tuple[Literal["pass", "review", "reject"], ...], Field(min_length=1)] = ("review", "reject")
    allowed_hosts: tuple[str, ...] = ()
    timeout_seconds: PositiveFloat = 10.0
    max_attempts: PositiveInt = 8

    @field_validator("url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s@#]+", url):
            raise ValueError("must be an http(s):// address without credentials or fragment")
        return url


class ReviewSettings(Section):
    """The review desk. An item of priority 100 is due `patience_minutes` after it came, one of priority 0 a hundred and
    one times later; a tenant's weight divides that. What is due first comes first, so nothing waits forever.

    `audit_share` of the images that passed are reviewed in the queue `audit`.

    Items of one tenant and queue whose features have a cosine of at least `duplicate_cosine` are judged together; 1
    leaves only equal files together. Measured with mst-lite 0.4.0 on 891 generated images of AGIQA-3K: at 0.975 9 of
    396,495 pairs of different images count as near (at 0.97: 19, at 0.99: 3); of their copies, as JPEG 85 100 %, as
    WebP 80 92 %, cropped by 2 % 88 % (at 0.99 63 % and 27 %), but of heavily compressed, blurred or shrunk ones 4 to
    9 % and of noisy ones none: those deserve a judgement of their own. Near ones are of images that were blurry before.
    """

    lease_seconds: PositiveFloat = 120.0
    undo_seconds: PositiveFloat = 10.0
    patience_minutes: PositiveFloat = 10.0
    tenant_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    duplicate_cosine: Annotated[float, Field(gt=0, le=1)] = 0.975
    keep_closed_days: PositiveInt = 90
    """How long settled items can be searched and looked at. The topics keep them for good; `sluice desk export` reads
    those."""
    webhooks: dict[Name, WebhookSettings] = Field(default_factory=dict)

    def queue(self, name: str) -> QueueSettings:
        """The queue's own settings, or what holds without any."""
        return self.queues.get(name, QueueSettings())
