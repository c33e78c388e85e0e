"""A vote from outside."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from schemas import Decision, FileReference, HttpReference, Identifier, ImageReference, Name, S3Reference, Vote
from schemas.explain import problems
from worker.review.answers import Choice
from worker.review.desk_api import DeskApi
from worker.review.errors import DeskError


class InterchangeError(Exception):
    """The file is not of the format; the message says where and what was expected."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something in a file that did not become a decision. `place` is a line, row or task."""

    place: str
    reason: str


class ImportedVote(BaseModel):
    """What a file says of one item."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    place: str
    item_id: Identifier
    outcome: Vote
    reviewer: Identifier
    labels: tuple[Name, ...] = ()
    note: Annotated[str, StringConstraints(max_length=4000)] | None = None
    seconds_spent: Annotated[float, Field(ge=0)] | None = None
    decided_at: AwareDatetime | None = None
    """Absent: when it is imported."""

    @property
    def decision_id(self) -> str:
        """The same file read again gives the same decisions."""
        text = "\0".join((self.item_id, self.outcome, self.reviewer, *self.labels, self.note or ""))
        return f"import-{hashlib.sha256(text.encode()).hexdigest()[:40]}"


@dataclass(frozen=True, slots=True)
class BroughtIn:
    """A vote that counts: from now on, or, where it is not new, since it was brought in or given before."""

    vote: ImportedVote
    is_new: bool


def parsed(place: str, fields: Any) -> ImportedVote | Refusal:
    """A vote, or why it is none."""
    try:
        return ImportedVote.model_validate({**fields, "place": place})
    except ValidationError as error:
        return Refusal(place, "; ".join(str(problem) for problem in problems(error)))


def bring_in(desk: DeskApi, votes: Iterable[ImportedVote | Refusal]) -> Iterator[BroughtIn | Refusal]:
    """Decides by each vote as its reviewer: those that count, and why the others do not. Raises what the desk raises
    when a server is away; then the file can be read again."""
    for vote in votes:
        if isinstance(vote, Refusal):
            yield vote
            continue
        try:
            known = _is_known(vote, desk.item(vote.item_id).history)
            if not known:
                _decide(desk, vote)
        except DeskError as error:
            yield Refusal(vote.place, f"{vote.item_id}: {error}")
        else:
            yield BroughtIn(vote, is_new=not known)


def _is_known(vote: ImportedVote, history: Iterable[Decision]) -> bool:
    """Whether the desk has the vote: from this file, read before, or because the file was exported from this desk."""
    told = (vote.reviewer, vote.outcome, vote.labels, vote.note)
    return any(
        made.decision_id == vote.decision_id or (made.reviewer, made.outcome, made.labels, made.note) == told
        for made in history
    )


def _decide(desk: DeskApi, vote: ImportedVote) -> None:
    lease = desk.take(vote.item_id, vote.reviewer)
    if len(lease.items) > 1:  # whoever judged it elsewhere did not see its near duplicates
        desk.split([view.item.item_id for view in lease.items[1:]], vote.reviewer, token=lease.token)
    choice = Choice(
        vote.item_id,
        lease.token,
        vote.decision_id,
        vote.outcome,
        vote.labels,
        vote.note,
        vote.seconds_spent,
        vote.decided_at,
    )
    try:
        desk.decide(choice, vote.reviewer)
    except DeskError:
        desk.release(lease.token, vote.reviewer)
        raise


def address(image: ImageReference | None) -> str:
    """An image as other tools name it; nothing for one that came within its event."""
    match image:
        case S3Reference():
            return f"s3://{image.bucket}/{image.key}"
        case HttpReference():
            return image.url
        case FileReference():
            return image.path
        case _:
            return ""
