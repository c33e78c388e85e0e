"""Queues and leases: what there is to do, and who has what."""

from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel, Field

from schemas import Name
from worker.review.answers import QueueOverview
from worker.review.errors import LeaseLost
from worker.review.http.answers import LeaseOut, ResponseBuilder
from worker.review.http.api_access import QueueReader
from worker.review.http.app_context import Context, Reviewer, SignedIn
from worker.review.http.problems import Problem
from worker.review.http.roles import Role
from worker.review.http.serialized_route import SerializedRoute
from worker.review.http.sign_in import Body
from worker.review.index import keys

router = APIRouter(tags=["queues"], route_class=SerializedRoute)

MAX_LEASES = 60

ItemId = Annotated[str, Field(min_length=1, max_length=512)]
FencingToken = Annotated[int, Field(ge=0)]
RequestId = Annotated[str, Field(min_length=1, max_length=64)]
"""Chosen by who asks, so that they can withdraw a request whose answer they will not hear."""


class LeaseRequest(Body):
    count: Annotated[int, Field(ge=1, le=MAX_LEASES)] = 1
    escalated: bool = False
    """The items that wait for a lead."""
    skipped: bool = False
    """The items that who asks has skipped and that still wait."""
    request_id: RequestId | None = None


class Held(Body):
    """A lease, as its holder names it."""

    item_id: ItemId
    token: FencingToken


class Skipped(Held):
    """A lease that is given up for others, and why."""

    labels: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    note: Annotated[str, Field(max_length=4000)] | None = None


class HeartbeatRequest(Body):
    leases: Annotated[list[Held], Field(min_length=1, max_length=MAX_LEASES)]


class ReleaseRequest(Body):
    leases: Annotated[tuple[Held, ...], Field(max_length=MAX_LEASES)] = ()
    requests: Annotated[tuple[RequestId, ...], Field(max_length=MAX_LEASES)] = ()
    """Requests for leases whose answer did not come; what they are granted goes back, also if they come later."""


class HeartbeatOut(BaseModel):
    """Until when a lease now lasts; absent when it was lost."""

    item_id: str
    expires_at: datetime | None


class IndexProgressOut(BaseModel):
    """How far a desk is in `reading` the topics or `filling` its index; what is filled can be worked on."""

    phase: str
    done: int
    total: int


@router.get("/v1/index")
def index_progress(_session: SignedIn, context: Context) -> IndexProgressOut | None:
    """None when the index is complete."""
    found: Any = context.redis.hgetall(keys.PROGRESS)
    if not found or int(found[b"done"]) >= int(found[b"total"]):
        return None
    return IndexProgressOut(phase=found[b"phase"].decode(), done=int(found[b"done"]), total=int(found[b"total"]))


@router.get("/v1/queues")
def queues(_session: QueueReader, context: Context) -> list[QueueOverview]:
    return context.desk.queues()


@router.post("/v1/queues/{queue}/leases")
def lease(queue: Annotated[Name, Path()], body: LeaseRequest, session: Reviewer, context: Context) -> list[LeaseOut]:
    """The next items for who asks; fewer than asked for, or none, when there are no more."""
    if body.escalated and not session.role.includes(Role.LEAD):
        raise Problem(HTTPStatus.FORBIDDEN, "role", "escalated items are for leads")
    leases = context.desk.lease(
        queue,
        session.user,
        count=body.count,
        escalated=body.escalated,
        skipped=body.skipped,
        request_id=body.request_id,
    )
    showing = ResponseBuilder(context.links, session.user)
    return [showing.lease(each) for each in leases]


@router.post("/v1/leases/heartbeat")
def heartbeat(body: HeartbeatRequest, session: Reviewer, context: Context) -> list[HeartbeatOut]:
    """Keeps leases; a lost one does not spoil the others."""
    return [HeartbeatOut(item_id=held.item_id, expires_at=_beat(context, held, session.user)) for held in body.leases]


@router.post("/v1/leases/release", status_code=HTTPStatus.NO_CONTENT)
def release(body: ReleaseRequest, session: Reviewer, context: Context) -> Response:
    """Gives items back unjudged."""
    for held in body.leases:
        context.desk.release(held.token, session.user)
    for request_id in body.requests:
        context.desk.withdraw(request_id, session.user)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/leases/skip", status_code=HTTPStatus.NO_CONTENT)
def skip(body: Skipped, session: Reviewer, context: Context) -> Response:
    """Others get the item, who asks does not get it again."""
    context.desk.skip(body.item_id, body.token, session.user, labels=body.labels, note=body.note)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _beat(context: Context, held: Held, user: str) -> datetime | None:
    try:
        return context.desk.heartbeat(held.item_id, held.token, user)
    except LeaseLost:
        return None
