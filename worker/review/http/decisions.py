"""Decisions: one, many, and taken back."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from schemas import Name
from worker.review.answers import Action, Choice, Decided
from worker.review.errors import DeskError
from worker.review.http.answers import LeaseOut, ResponseBuilder
from worker.review.http.app_context import Context, Reviewer
from worker.review.http.desk_errors import kind_of
from worker.review.http.queues import MAX_LEASES, FencingToken, ItemId
from worker.review.http.serialized_route import SerializedRoute
from worker.review.http.sign_in import Body

router = APIRouter(tags=["decisions"], route_class=SerializedRoute)

DecisionId = Annotated[str, Field(min_length=8, max_length=128, pattern=r"^[A-Za-z0-9._-]+$")]


class ChoiceIn(Body):
    """An action on a leased item: a vote, a skip, a hold or an escalation. `decision_id` is chosen by the sender and
    makes it idempotent."""

    decision_id: DecisionId
    item_id: ItemId
    token: FencingToken
    outcome: Action
    labels: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    note: Annotated[str, Field(max_length=4000)] | None = None
    seconds_spent: Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)] | None = None

    def choice(self) -> Choice:
        return Choice(
            item_id=self.item_id,
            token=self.token,
            decision_id=self.decision_id,
            outcome=self.outcome,
            labels=self.labels,
            note=self.note,
            seconds_spent=self.seconds_spent,
        )


class Many(Body):
    decisions: Annotated[list[ChoiceIn], Field(min_length=1, max_length=MAX_LEASES)]


class RefusalOut(BaseModel):
    kind: str
    detail: str


class OutcomeOut(BaseModel):
    """What became of one of many: either is there."""

    item_id: str
    decided: Decided | None = None
    refused: RefusalOut | None = None


@router.post("/v1/decisions")
def decide(body: ChoiceIn, session: Reviewer, context: Context) -> Decided:
    """Answers once the log has the decision."""
    return context.desk.decide(body.choice(), session.user)


@router.post("/v1/decisions/bulk")
def bulk(body: Many, session: Reviewer, context: Context) -> list[OutcomeOut]:
    """Each has its own outcome, in the order that was sent."""
    answers = context.desk.bulk_decide([each.choice() for each in body.decisions], session.user)
    return [
        OutcomeOut(item_id=each.item_id, refused=RefusalOut(kind=kind_of(answer), detail=str(answer)))
        if isinstance(answer, DeskError)
        else OutcomeOut(item_id=each.item_id, decided=answer)
        for each, answer in zip(body.decisions, answers, strict=True)
    ]


@router.post("/v1/decisions/{decision_id}/undo")
def undo(decision_id: Annotated[DecisionId, Path()], session: Reviewer, context: Context) -> LeaseOut:
    """Undoes the caller's own action, of any kind, within `undo_seconds`, and leases the item again. Idempotent."""
    return ResponseBuilder(context.links, session.user).lease(context.desk.undo(decision_id, session.user))
