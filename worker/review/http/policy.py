"""The policy, for leads: what it says, and what a changed one would have done with past verdicts.

Saving is left to those who deploy: the policy is a file under version control, which workers read when they start.
"""

import tempfile
from collections import defaultdict
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from schemas import Verdict
from worker.policy import PolicyError, load_policy
from worker.policy.loading import DEFAULT
from worker.policy.policy import Policy
from worker.policy.replay import Flip, Replay, replay
from worker.review.http.answers import ImageOut, Showing
from worker.review.http.door import Door, Lead, TheDoor
from worker.review.http.problems import Problem
from worker.review.http.sign_in import Body

router = APIRouter(tags=["policy"])

MAX_TEXT: Final = 256 * 1024


class PolicyOut(BaseModel):
    """The policy that this desk's settings name. `shipped`: they name none, so it is the one that comes with Sluice."""

    version: str
    digest: str
    shipped: bool
    text: str
    verdicts: int
    """How many past verdicts a replay would look at."""


class Proposal(Body):
    """A policy file's text."""

    text: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


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


@router.get("/v1/policy")
def policy(_session: Lead, door: TheDoor) -> PolicyOut:
    path = door.policy_path
    loaded = load_policy(path)
    text = (path or DEFAULT).read_text(encoding="utf-8")
    return PolicyOut(
        version=loaded.version,
        digest=loaded.digest,
        shipped=path is None,
        text=text,
        verdicts=len(door.past_verdicts.newest()),
    )


@router.post("/v1/policy/replay")
def try_policy(body: Proposal, session: Lead, door: TheDoor) -> ReplayOut:
    """What the proposed policy would have made of past verdicts. Nothing changes."""
    proposed = _loaded(body.text)
    verdicts = door.past_verdicts.newest()
    result = replay(proposed, verdicts)
    door.audit(session.user, "policy-replayed", digest=proposed.digest, verdicts=str(result.total))
    return ReplayOut(
        version=proposed.version,
        digest=proposed.digest,
        total=result.total,
        replayed=result.replayed,
        failed=result.failed,
        changed=result.changed,
        before=dict(result.before),
        after=dict(result.after),
        flips=_flips(result, verdicts, door, Showing(door.links, session.user)),
        undecided=[
            UndecidedOut(rule=rule, count=count, reads=result.undecided_reads[rule])
            for rule, count in result.undecided.most_common()
        ],
    )


def _loaded(text: str) -> Policy:
    """A policy from its text; its faults are named as `policy.yaml:line: …`."""
    with tempfile.TemporaryDirectory(prefix="sluice-policy-") as folder:
        path = Path(folder) / "policy.yaml"
        path.write_text(text, encoding="utf-8")
        try:
            return load_policy(path)
        except PolicyError as error:
            lines = [line.replace(f"{folder}/", "") for line in str(error).splitlines()]
            raise Problem(
                HTTPStatus.UNPROCESSABLE_ENTITY, "policy-refused", lines[0], faults=[{"what": line} for line in lines]
            ) from None


def _flips(result: Replay, verdicts: list[Verdict], door: Door, showing: Showing) -> list[FlipOut]:
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
            examples=[_example(flip, by_event[flip.event_id], door, showing) for flip in examples[before, after]],
        )
        for (before, after), count in result.flips.most_common()
    ]


def _example(flip: Flip, verdict: Verdict, door: Door, showing: Showing) -> ExampleOut:
    image = None
    if verdict.image is not None:
        name = f"verdict:{verdict.verdict_id}"
        door.shown_verdicts.put(name, (verdict.image, verdict.content_hash))
        image = showing.image(name)
    return ExampleOut(
        event_id=flip.event_id,
        tenant=flip.tenant,
        quality=flip.quality,
        rule_before=flip.rule_before,
        rule_after=flip.rule_after,
        image=image,
    )
