"""What Sluice says of an image: `sluice.verdict/1`."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from schemas.base import Contract, Digest, Identifier, Name, Priority, Timestamp
from schemas.failure import Failure
from schemas.image_event import FileReference, HttpReference, S3Reference
from schemas.provenance import Provenance


class Source(Contract):
    """Where the event stood in its topic; `index` counts the events of one record."""

    topic: str
    partition: Annotated[int, Field(ge=0)]
    offset: Annotated[int, Field(ge=0)]
    index: Annotated[int, Field(ge=0)] = 0


class Scores(Contract):
    """What the model makes of an image.

    `quality` runs from 1 (bad) to 5 (perfect), the expectation over `anchors`, the probabilities of
    bad, poor, fair, good and perfect. `coarse_share` is the mean of the fusion gate: how much the score listened to the
    coarse stream rather than the fine one; both are absent where a model judged the quality beside the prompt.
    `correspondence` (1 to 5) tells how well the image fits its prompt, where a model judges that. `frames` counts those
    of an animation, of which some are scored; `worst_frame` is the number of the worst of these, from 0.
    """

    quality: Annotated[float, Field(ge=1, le=5)]
    anchors: Annotated[tuple[FiniteFloat, ...], Field(min_length=5, max_length=5)] | None = None
    coarse_share: Annotated[float, Field(ge=0, le=1)] | None = None
    correspondence: Annotated[float, Field(ge=1, le=5)] | None = None
    frames: Annotated[int, Field(ge=1)] = 1
    worst_frame: Annotated[int, Field(ge=0)] | None = None


class RouteOverload(Contract):
    """The overload rule that decided on a route: more waited in the review queue `queue`, where the policy's rule sends
    the image, than its reviewers can take. `delay` changes nothing. `sample` sends a share of the images to the queue,
    and `widen` those that meet no further condition; the others take another route, which is never to pass."""

    queue: Name
    mode: Literal["delay", "sample", "widen"]


class Route(Contract):
    """Where the policy sends an image, and by which rule. `overload` is there while the rule's queue is overloaded."""

    action: Literal["pass", "review", "reject"]
    queue: Name | None = None
    priority: Priority = 50
    labels: tuple[Name, ...] = ()
    rule: str
    overload: RouteOverload | None = None


class ShadowRoute(Contract):
    """What a shadow policy, which is only asked, would have done: `route`, or the same where there is none. `name` is
    the operator's word for it, `policy` its digest."""

    name: Name
    policy: Digest
    route: Route | None = None


class Timings(Contract):
    """Milliseconds spent on the event; a stage that was skipped is 0. `total_ms` runs from poll to verdict."""

    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    engine_ms: float = 0.0
    total_ms: float = 0.0


class Verdict(Contract):
    """The outcome for one event.

    `verdict_id` follows from event id, content hash, model and policy, so a consumer can drop repeats. A verdict with
    status `failed` has no scores and tells why in `failure`; it is routed to review, so no image passes unseen.
    `shadow` has an entry for each shadow policy that was asked. `overloaded` are the review queues that the worker knew
    to be over the limits of the policy; a replay uses it. `provenance` is what the file itself says; null
    where that was not read.
    """

    schema_: Literal["sluice.verdict/1"] = Field(default="sluice.verdict/1", alias="schema")
    verdict_id: Identifier
    event_id: Identifier
    tenant: Name
    occurred_at: Timestamp | None
    judged_at: Timestamp
    image: Annotated[S3Reference | HttpReference | FileReference, Field(discriminator="kind")] | None = None
    content_hash: Digest | None
    status: Literal["scored", "failed"]
    scores: Scores | None
    failure: Failure | None = None
    route: Route
    shadow: tuple[ShadowRoute, ...] = ()
    overloaded: tuple[Name, ...] = ()
    cached: bool = False
    model: Digest
    policy: Digest
    generator: str | None = None
    provenance: Provenance | None = None
    timings: Timings = Timings()
    source: Source
