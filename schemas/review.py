"""What reviewers get, say and do: `sluice.review-item/1`, `sluice.decision/1` and `sluice.audit-entry/1`."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.audit_plan import AuditDraw
from schemas.base import Base64Data, Contract, Digest, Identifier, Name, Priority, Timestamp
from schemas.failure import Failure
from schemas.image_event import ImageReference
from schemas.provenance import Provenance
from schemas.verdict import Scores, Source


class ReviewItem(Contract):
    """An image that people should look at.

    `features` holds each tower's embedding as little-endian float16, so that heads can be fitted to decisions without
    the image. An item whose image could not be judged carries `failure` instead of scores. `audit` tells how an image
    that had passed was drawn for the audit; it is absent elsewhere.
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
    provenance: Provenance | None = None
    scores: Scores | None
    failure: Failure | None = None
    labels: tuple[Name, ...] = ()
    rule: str
    features: dict[str, Base64Data] = Field(default_factory=dict)
    model: Digest
    policy: Digest
    source: Source
    audit: AuditDraw | None = None


Vote = Literal["approve", "reject"]
"""What a reviewer says of an image."""

Resolution = Literal["approve", "reject", "escalate"]
"""What votes come to; `escalate` where they tie and somebody else must say."""


class Decision(Contract):
    """What a person did to an item, under the item's id as key. Records of one item are in order.

    `approve` and `reject` are votes: `resolution` tells what the item's votes came to with this one, and is absent
    while more are needed (and for items that only test the reviewer). A consumer that acts on images reads
    `resolution`, and takes it back when a `reopen` follows; one with `undoes` names the decision that its reviewer took
    back.

    `fencing_token` orders what is done to an item: it is that of the lease it was done under, or a fresh one. A record
    whose token is not above those before it came too late and does not count. A decision on near duplicates is one
    record for each of them: `decided_with` names the item that the reviewer looked at. `gold` makes the item one whose
    answer, `resolution`, is known and which is shown to test reviewers; `split` parts it from its near duplicates.
    """

    schema_: Literal["sluice.decision/1"] = Field(default="sluice.decision/1", alias="schema")
    decision_id: Identifier
    item_id: Identifier
    verdict_id: Identifier
    event_id: Identifier
    tenant: Name
    queue: Name
    reviewer: Identifier
    outcome: Literal["approve", "reject", "escalate", "hold", "reopen", "skip", "assign", "split", "gold"]
    resolution: Resolution | None = None
    labels: tuple[Name, ...] = ()
    note: Annotated[str, Field(max_length=4000)] | None = None
    assignee: Identifier | None = None
    undoes: Identifier | None = None
    decided_with: Identifier | None = None
    decided_at: Timestamp
    fencing_token: Annotated[int, Field(ge=0)]
    seconds_spent: Annotated[float, Field(ge=0)] | None = None


class AuditEntry(Contract):
    """Somebody did something at the desk. Entries are only ever added."""

    schema_: Literal["sluice.audit-entry/1"] = Field(default="sluice.audit-entry/1", alias="schema")
    at: Timestamp
    actor: Identifier
    action: Name
    subjects: tuple[Identifier, ...] = ()
    """Item ids, or what else the action was done to."""
    detail: dict[str, str] = Field(default_factory=dict)
