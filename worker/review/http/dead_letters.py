"""Dead letters, for leads: finding them, looking at one, redriving and dropping. Every action is in the audit."""

from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from schemas import FailureReason
from worker.dead_letters.actions import AT_ONCE, ActionReport
from worker.dead_letters.selection import LetterState, Selection
from worker.dead_letters.view import LetterDetail, LetterView
from worker.review.http.app_context import Context, Lead
from worker.review.http.problems import Problem
from worker.review.http.redaction import redacted, redacted_header
from worker.review.http.serialized_route import SerializedRoute
from worker.review.http.sign_in import Body

router = APIRouter(tags=["dead letters"], route_class=SerializedRoute)

MAX_IDS: Final = 10_000
TEXT_CHARACTERS: Final = 16_000
"""Of a record's value, so much is shown at the desk."""

LetterId = Annotated[str, Path(pattern=r"^[0-9a-f]{20}$")]


class LetterFilter(BaseModel):
    """Which letters; an absent condition means any. `since` is included, `until` is not."""

    state: LetterState | None = None
    reason: Annotated[tuple[FailureReason, ...], Field(max_length=len(FailureReason))] = ()
    tenant: Annotated[tuple[str, ...], Field(max_length=100)] = ()
    partition: Annotated[tuple[int, ...], Field(max_length=1000)] = ()
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    text: Annotated[str, Field(max_length=256)] = ""

    def selection(self) -> Selection:
        return Selection(
            state=self.state,
            reasons=frozenset(self.reason),
            tenants=frozenset(self.tenant),
            partitions=frozenset(self.partition),
            since=self.since,
            until=self.until,
            text=self.text,
        )


class LetterPageFilter(LetterFilter):
    """A filter, and which part of what it finds."""

    start: Annotated[int, Field(ge=0)] = 0
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class Chosen(Body):
    """Letters to act on, and why."""

    letter_ids: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{20}$")], ...], Field(min_length=1, max_length=AT_ONCE)
    ]
    reason: Annotated[str, Field(max_length=1000)] = ""


class Dropped(Chosen):
    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S")]


class LettersOut(BaseModel):
    """`letters` are a part of the `count` that were found, newest first. Until `is_complete`, the desk is still
    reading: `read` of `total` records. `left_out` letters are too many to hold; the desk does not find them."""

    letters: tuple[LetterView, ...]
    count: int
    reasons: dict[str, int]
    tenants: tuple[str, ...]
    is_complete: bool
    read: int
    total: int
    left_out: int


class ReportOut(BaseModel):
    """`done`, by their ids; `already`: those that somebody had acted on before, with their state; `refused`: those that
    cannot be redriven, with the reason."""

    done: list[str]
    already: dict[str, LetterState]
    refused: dict[str, str]


@router.get("/v1/dead-letters")
def letters(_session: Lead, context: Context, asked: Annotated[LetterPageFilter, Query()]) -> LettersOut:
    found = context.dead_letters.find(asked.selection(), start=asked.start, limit=asked.limit)
    return LettersOut(
        letters=tuple(letter.model_copy(update={"message": redacted(letter.message)}) for letter in found.letters),
        count=found.count,
        reasons=found.reasons,
        tenants=found.tenants,
        is_complete=found.is_complete,
        read=found.read,
        total=found.total,
        left_out=found.left_out,
    )


@router.get("/v1/dead-letters/ids")
def ids(_session: Lead, context: Context, asked: Annotated[LetterFilter, Query()]) -> list[str]:
    """The ids of all that are found, oldest first, to act on them part by part; at most 10,000."""
    return context.dead_letters.ids(asked.selection(), MAX_IDS)


@router.get("/v1/dead-letters/{letter_id}")
def letter(letter_id: LetterId, _session: Lead, context: Context) -> LetterDetail:
    """One letter with its record. What may be secret in addresses and headers is left out."""
    found = context.dead_letters.detail(letter_id)
    if found is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-such-letter", "there is no such letter, or its topic keeps it no more")
    return found.model_copy(
        update={
            "message": redacted(found.message),
            "headers": [(name, redacted_header(name, value)) for name, value in found.headers],
            "text": None if found.text is None else redacted(found.text[:TEXT_CHARACTERS]),
            "text_is_cut": found.text_is_cut or len(found.text or "") > TEXT_CHARACTERS,
        }
    )


@router.post("/v1/dead-letters/redrive")
def redrive(body: Chosen, session: Lead, context: Context) -> ReportOut:
    """Submits the letters' events again, each once. Sending it again is safe."""
    return _out(context.dead_letters.redrive(body.letter_ids, session.user, body.reason))


@router.post("/v1/dead-letters/drop")
def drop(body: Dropped, session: Lead, context: Context) -> ReportOut:
    """Records that the letters' events will not be submitted again, and why. Nothing is deleted."""
    return _out(context.dead_letters.drop(body.letter_ids, session.user, body.reason))


def _out(report: ActionReport) -> ReportOut:
    return ReportOut(done=report.done, already=report.already, refused=report.refused)
