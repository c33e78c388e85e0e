"""What reviewers get and what they say: `sluice.review-item/1` and `sluice.decision/1`."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Base64Data, Contract, Digest, Identifier, Name, Priority, Timestamp
from schemas.failure import Failure
from schemas.image_event import ImageReference
from schemas.verdict import Scores, Source


class ReviewItem(Contract):
    """An image that people should look at.

    `features` holds each tower's embedding as little-endian float16, so that heads can be fitted to decisions without
    the image. An item whose image could not be judged carries `failure` instead of scores.
    """

    schema_: Literal["sluice.review-item/1"] = Field(default="sluice.review-item/1", alias="schema")
    item_id: Identifier
    verdict_id: Identifier
    event_id: Identifier
    tenant: Name
    queue: Name
    priority: Priority
    created_at: Timestamp
    image: ImageReference | None
    content_hash: Digest | None
    prompt: str | None = None
    generator: str | None = None
    scores: Scores | None
    failure: Failure | None = None
    labels: tuple[Name, ...] = ()
    rule: str
    features: dict[str, Base64Data] = Field(default_factory=dict)
    model: Digest
    policy: Digest
    source: Source


class Decision(Contract):
    """What a reviewer decided about an item. `fencing_token` is that of the lease it was made under."""

    schema_: Literal["sluice.decision/1"] = Field(default="sluice.decision/1", alias="schema")
    decision_id: Identifier
    item_id: Identifier
    verdict_id: Identifier
    event_id: Identifier
    tenant: Name
    queue: Name
    reviewer: Identifier
    outcome: Literal["approve", "reject", "escalate", "hold", "reopen"]
    labels: tuple[Name, ...] = ()
    note: Annotated[str, Field(max_length=4000)] | None = None
    decided_at: Timestamp
    fencing_token: Annotated[int, Field(ge=0)]
    seconds_spent: Annotated[float, Field(ge=0)] | None = None
