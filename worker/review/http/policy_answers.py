"""What the API says of policies: the one at its place, shadows, and what another would have done."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel

from schemas import Verdict
from worker.policy.replay import Flip, Replay
from worker.review.http.answers import ImageOut, ResponseBuilder
from worker.review.http.app_context import AppContext, ShownImage


class PolicyOut(BaseModel):
    """The policy at its place. `text_digest` names the text: who saves another says that it replaces this one.

    `version` and `digest` are absent, and `faults` tells why, for a text that is no policy: workers then go on with the
    last one that was. `place` is absent where none can be saved. `shipped`: none was saved yet, so it is the one that
    comes with Sluice.
    """

    version: str | None
    digest: str | None
    faults: list[str]
    shipped: bool
    text: str
    text_digest: str
    place: str | None
    saved_by: str | None
    saved_at: datetime | None
    verdicts: int
    """How many past verdicts a replay would look at."""


class SavedOut(BaseModel):
    """Workers judge by it within seconds."""

    version: str
    digest: str
    text_digest: str


class ExampleOut(BaseModel):
    event_id: str
    tenant: str
    quality: float
    rule_before: str
    rule_after: str
    image: ImageOut | None


class FlipOut(BaseModel):
    """Verdicts that would have gone elsewhere: `pass`, `reject`, `review:queue`."""

    before: str
    after: str
    count: int
    examples: list[ExampleOut]


class UndecidedOut(BaseModel):
    """A rule that reads what verdicts do not carry."""

    rule: str
    count: int
    reads: tuple[str, ...]


class ReplayOut(BaseModel):
    version: str
    digest: str
    total: int
    replayed: int
    failed: int
    changed: int
    """Same destination, other priority or labels."""
    before: dict[str, int]
    after: dict[str, int]
    flips: list[FlipOut]
    undecided: list[UndecidedOut]


class ShadowOut(BaseModel):
    """A shadow policy, and what it would have done with those of the past verdicts that it was asked about.

    `digest` is that of the policy that was asked, which may not be the one that `text` holds by now. `trouble` tells
    why there is no text, or why it is no policy.
    """

    name: str
    text: str | None
    trouble: str | None
    digest: str | None
    total: int
    changed: int
    """Same destination, other priority or labels."""
    before: dict[str, int]
    after: dict[str, int]
    flips: list[FlipOut]


def flips(result: Replay, verdicts: Sequence[Verdict], context: AppContext, showing: ResponseBuilder) -> list[FlipOut]:
    """The kinds of verdicts that would have gone elsewhere, with examples whose images can be looked at."""
    examples: dict[tuple[str, str], list[Flip]] = defaultdict(list)
    for flip in result.examples:
        examples[flip.before, flip.after].append(flip)
    wanted = {flip.event_id for flip in result.examples}
    by_event = {verdict.event_id: verdict for verdict in verdicts if verdict.event_id in wanted}
    return [
        FlipOut(
            before=before,
            after=after,
            count=count,
            examples=[_example(flip, by_event[flip.event_id], context, showing) for flip in examples[before, after]],
        )
        for (before, after), count in result.flips.most_common()
    ]


def _example(flip: Flip, verdict: Verdict, context: AppContext, showing: ResponseBuilder) -> ExampleOut:
    image = None
    if verdict.image is not None:
        name = f"verdict:{verdict.verdict_id}"
        frame = (verdict.scores.worst_frame if verdict.scores is not None else None) or 0
        context.shown_verdicts.put(name, ShownImage(verdict.image, verdict.content_hash, frame))
        image = showing.image(name)
    return ExampleOut(
        event_id=flip.event_id,
        tenant=flip.tenant,
        quality=flip.quality,
        rule_before=flip.rule_before,
        rule_after=flip.rule_after,
        image=image,
    )
