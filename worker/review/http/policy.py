"""The policy, for leads: what it says, what another would have done with past verdicts, and saving that one."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter
from pydantic import Field

from schemas import Digest
from worker.policy import Policy, PolicyError, parse_policy
from worker.policy.errors import PolicyConflict, PolicyReadOnly
from worker.policy.place import NO_PLACE, PolicyPlace, ShippedPlace
from worker.policy.replay import Replay, replay
from worker.policy.requirements import require_provenance
from worker.policy.shadow_results import shadow_results
from worker.policy.text import PolicyText
from worker.review.http.answers import ResponseBuilder
from worker.review.http.app_context import AppContext, Context, Lead
from worker.review.http.policies import Policies
from worker.review.http.policy_answers import PolicyOut, ReplayOut, SavedOut, ShadowOut, UndecidedOut, flips
from worker.review.http.problems import Problem
from worker.review.http.sign_in import Body

router = APIRouter(tags=["policy"])

MAX_TEXT: Final = 256 * 1024
NAME: Final = "policy.yaml"
"""What messages on a proposed text call it."""

Text = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]


class PolicyProposal(Body):
    """A policy file's text."""

    text: Text


class Replacement(PolicyProposal):
    """A text to save in place of the one with the digest `replaces`."""

    replaces: Digest


@router.get("/v1/policy")
def policy(_session: Lead, context: Context) -> PolicyOut:
    place = context.policies.live
    found = _read(place)
    try:
        loaded, faults = parse_policy(found.content, place.address), []
    except PolicyError as error:
        loaded, faults = None, str(error).splitlines()
    saver = context.policies.saver(found)
    return PolicyOut(
        version=loaded.version if loaded else None,
        digest=loaded.digest if loaded else None,
        faults=faults,
        shipped=found.shipped,
        text=_shown(found),
        text_digest=found.digest,
        place=None if isinstance(place, ShippedPlace) else place.address,
        saved_by=saver.by if saver else None,
        saved_at=saver.at if saver else None,
        verdicts=len(context.past_verdicts.newest()),
    )


@router.put("/v1/policy")
def save(body: Replacement, session: Lead, context: Context) -> SavedOut:
    """Puts the text at the policy's place. Sending it again is safe.

    409 `policy-changed` when somebody else has put another there meanwhile; 409 `policy-read-only` where none can be
    saved; both tell what to do.
    """
    policies, content = context.policies, body.text.encode()
    proposed = _parsed(body.text, policies)
    if isinstance(policies.live, ShippedPlace):
        raise Problem(HTTPStatus.CONFLICT, "policy-read-only", NO_PLACE)
    wanted, present = PolicyText(content), _read(policies.live)
    if present.digest != wanted.digest:
        if present.digest != body.replaces:
            raise _changed(context, present)
        # Before the change, not after: one that nobody could trace must not be made.
        context.desk.record(
            session.user,
            "policy-saved",
            detail={
                "place": policies.live.address,
                "version": proposed.version,
                "digest": proposed.digest,
                "text_digest": wanted.digest,
                "replaces": body.replaces,
                "text": body.text,
            },
        )
        try:
            policies.live.replace(body.replaces, content)
        except PolicyError as error:
            context.audit(session.user, "policy-not-saved", text_digest=wanted.digest, reason=str(error))
            if isinstance(error, PolicyConflict):
                raise _changed(context, error.present) from None
            kind = "policy-read-only" if isinstance(error, PolicyReadOnly) else "policy-not-saved"
            raise Problem(HTTPStatus.CONFLICT, kind, str(error)) from None
        policies.remember(wanted, session.user)
    return SavedOut(version=proposed.version, digest=proposed.digest, text_digest=wanted.digest)


@router.post("/v1/policy/replay")
def try_policy(body: PolicyProposal, session: Lead, context: Context) -> ReplayOut:
    """What the proposed policy would have made of past verdicts. Nothing changes."""
    proposed = _parsed(body.text, context.policies)
    verdicts = context.past_verdicts.newest()
    result = replay(proposed, verdicts)
    context.audit(session.user, "policy-replayed", digest=proposed.digest, verdicts=str(result.total))
    return ReplayOut(
        version=proposed.version,
        digest=proposed.digest,
        total=result.total,
        replayed=result.replayed,
        failed=result.failed,
        changed=result.changed,
        before=dict(result.before),
        after=dict(result.after),
        flips=flips(result, verdicts, context, ResponseBuilder(context.links, session.user)),
        undecided=[
            UndecidedOut(rule=rule, count=count, reads=result.undecided_reads[rule])
            for rule, count in result.undecided.most_common()
        ],
    )


@router.get("/v1/policy/shadows")
def shadows(session: Lead, context: Context) -> list[ShadowOut]:
    """The shadow policies of this desk's settings, and those that past verdicts name, by name."""
    verdicts = context.past_verdicts.newest()
    results = shadow_results(verdicts)
    showing = ResponseBuilder(context.links, session.user)
    answers = []
    for name in sorted(context.policies.shadows.keys() | results.keys()):
        text, trouble = _shadow_text(context.policies.shadows.get(name))
        digest, result = results.get(name, (None, Replay()))
        answers.append(
            ShadowOut(
                name=name,
                text=text,
                trouble=trouble,
                digest=digest,
                total=result.total,
                changed=result.changed,
                before=dict(result.before),
                after=dict(result.after),
                flips=flips(result, verdicts, context, showing),
            )
        )
    return answers


def _read(place: PolicyPlace) -> PolicyText:
    try:
        return place.read()
    except PolicyError as error:
        raise Problem(HTTPStatus.CONFLICT, "policy-unreadable", str(error)) from None


def _shadow_text(place: PolicyPlace | None) -> tuple[str | None, str | None]:
    """The text, and what is wrong."""
    if place is None:
        return None, "this desk's settings name no shadow policy of this name; its workers' do"
    try:
        found = place.read()
    except PolicyError as error:
        return None, str(error)
    try:
        parse_policy(found.content, place.address)
    except PolicyError as error:
        return _shown(found), str(error)
    return _shown(found), None


def _shown(text: PolicyText) -> str:
    """With the line ends that browsers give back."""
    return text.content.decode("utf-8-sig", errors="replace").replace("\r\n", "\n")


def _changed(context: AppContext, present: PolicyText) -> Problem:
    saver = context.policies.saver(present)
    by = f"{saver.by} saved another policy" if saver else "another policy was put there"
    return Problem(
        HTTPStatus.CONFLICT,
        "policy-changed",
        f"{by} since you loaded yours; look at it, and make your change to that one",
        saved_by=saver.by if saver else None,
        saved_at=saver.at.isoformat() if saver else None,
        text_digest=present.digest,
    )


def _parsed(text: str, policies: Policies) -> Policy:
    """A policy from its text; its faults are named as `policy.yaml:line: …`."""
    try:
        policy = parse_policy(text.encode(), NAME)
        require_provenance(policy, policies.provenance, NAME)
    except PolicyError as error:
        lines = str(error).splitlines()
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "policy-refused", lines[0], faults=[{"what": line} for line in lines]
        ) from None
    return policy
