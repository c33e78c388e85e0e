"""Items: looking at them, searching, and what is done to them out of turn."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response
from pydantic import AwareDatetime, BaseModel, Field

from schemas import Identifier, Name, Vote
from worker.review.answers import ItemView, Status
from worker.review.answers import Query as Wanted
from worker.review.http.answers import ItemOut, LeaseOut, PageOut, ResponseBuilder
from worker.review.http.api_access import ItemReader
from worker.review.http.app_context import AppContext, Context, Lead, Reviewer
from worker.review.http.oidc import PROVIDED
from worker.review.http.problems import Problem
from worker.review.http.queues import FencingToken, ItemId
from worker.review.http.roles import Role
from worker.review.http.serialized_route import SerializedRoute
from worker.review.http.sessions import Session
from worker.review.http.sign_in import Body
from worker.review.http.thread_budget import ThreadBudget

router = APIRouter(tags=["items"], route_class=SerializedRoute)

SEARCHES: Final = ThreadBudget("searches", 2)
"""Few, as leases and decisions share the processors with them."""
ItemPath = Annotated[str, Path(min_length=1, max_length=512)]
Note = Annotated[str, Field(max_length=4000)] | None


class SetAside(Body):
    """Under a lease, with its token; leads may do without."""

    token: FencingToken | None = None
    labels: Annotated[tuple[Name, ...], Field(max_length=20)] = ()
    note: Note = None


class Assignment(Body):
    assignee: Identifier | None


class Noted(Body):
    note: Note = None


class Answer(Body):
    answer: Vote


class Search(BaseModel):
    """As worker.review.answers.Query, and which page of it."""

    queue: Name | None = None
    status: Status | None = None
    tenant: Name | None = None
    reviewer: Annotated[str, Field(max_length=512)] | None = None
    label: Name | None = None
    event_id: Annotated[str, Field(max_length=512)] | None = None
    content_hash: Annotated[str, Field(max_length=128)] | None = None
    text: Annotated[str, Field(max_length=256)] | None = None
    generator: Annotated[str, Field(max_length=512)] | None = None
    outcome: Annotated[str, Field(max_length=32)] | None = None
    since: AwareDatetime | None = None
    until: AwareDatetime | None = None
    min_quality: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max_quality: Annotated[float, Field(allow_inf_nan=False)] | None = None
    oldest_first: bool = False
    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: Annotated[str, Field(max_length=1024)] | None = None


class Several(Body):
    """Under a lease on them, with its token; leads may do without."""

    item_ids: Annotated[list[ItemId], Field(min_length=1, max_length=200)]
    token: FencingToken | None = None


@router.get("/v1/items", response_model=PageOut)
async def search(session: ItemReader, context: Context, wanted: Annotated[Search, Query()]) -> Response:
    """Who votes may not search by what others did, nor by what tests them."""
    others = wanted.reviewer is not None and wanted.reviewer != session.user
    hidden = wanted.label or wanted.status is not None or wanted.outcome is not None
    if session.role is Role.REVIEWER and (others or hidden):
        detail = "searching by status, label, outcome or another reviewer is for leads and viewers"
        raise Problem(HTTPStatus.FORBIDDEN, "role", detail)
    return await SEARCHES.run(_search, session, context, wanted)


def _search(session: Session, context: AppContext, wanted: Search) -> Response:
    query = Wanted(**wanted.model_dump(exclude={"limit", "cursor"}))
    found = context.desk.search(query, limit=wanted.limit, cursor=wanted.cursor, blind_to=_blind_to(session))
    page = ResponseBuilder(context.links, session.user).page(found)
    return Response(page.model_dump_json(), media_type="application/json")


@router.get("/v1/items/{item_id}")
def item(item_id: ItemPath, session: ItemReader, context: Context) -> ItemOut:
    return ResponseBuilder(context.links, session.user).item(context.desk.item(item_id, blind_to=_blind_to(session)))


@router.post("/v1/items/{item_id}/take")
def take(item_id: ItemPath, session: Reviewer, context: Context) -> LeaseOut:
    """That very item, to decide it out of turn: any for leads; for reviewers one that is assigned to them, or that they
    skipped."""
    if not session.role.includes(Role.LEAD) and not _is_own(context.desk.item(item_id, blind_to=session.user), session):
        detail = "out of turn leads decide, and reviewers on what is assigned to them or what they skipped"
        raise Problem(HTTPStatus.FORBIDDEN, "role", detail)
    return ResponseBuilder(context.links, session.user).lease(context.desk.take(item_id, session.user))


@router.post("/v1/items/{item_id}/hold", status_code=HTTPStatus.NO_CONTENT)
def hold(item_id: ItemPath, body: SetAside, session: Reviewer, context: Context) -> Response:
    return _set_aside(context.desk.hold, item_id, body, session)


@router.post("/v1/items/{item_id}/escalate", status_code=HTTPStatus.NO_CONTENT)
def escalate(item_id: ItemPath, body: SetAside, session: Reviewer, context: Context) -> Response:
    return _set_aside(context.desk.escalate, item_id, body, session)


@router.post("/v1/items/{item_id}/assign", status_code=HTTPStatus.NO_CONTENT)
def assign(item_id: ItemPath, body: Assignment, session: Lead, context: Context) -> Response:
    context.desk.assign(item_id, None if body.assignee is None else _assignee(body.assignee, context), session.user)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/items/{item_id}/reopen", status_code=HTTPStatus.NO_CONTENT)
def reopen(item_id: ItemPath, body: Noted, session: Lead, context: Context) -> Response:
    context.desk.reopen(item_id, session.user, note=body.note)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/items/{item_id}/gold", status_code=HTTPStatus.NO_CONTENT)
def gold(item_id: ItemPath, body: Answer, session: Lead, context: Context) -> Response:
    """The item tests reviewers from now on."""
    context.desk.mark_gold(item_id, body.answer, session.user)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/clusters/split", status_code=HTTPStatus.NO_CONTENT)
def split(body: Several, session: Reviewer, context: Context) -> Response:
    """Parts items from their near duplicates; of the one a lease is on, all others are parted."""
    _need_token_or_lead(body.token, session)
    context.desk.split(body.item_ids, session.user, token=body.token)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _assignee(name: str, context: AppContext) -> str:
    """The user that people call so. An item that is assigned to nobody there is would wait for ever."""
    user = context.accounts.find(name) if context.accounts is not None else None
    if user is not None:
        if not user.role.includes(Role.REVIEWER):
            detail = f"{user.name} is a {user.role.value}, who cannot decide; assign it to a reviewer"
            raise Problem(HTTPStatus.CONFLICT, "not-a-reviewer", detail)
        return user.name
    if context.oidc is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-such-user", f"there is no user {name!r}; People lists those there are")
    # The provider's users are not known before they come; the page shows their names without what marks them.
    return name if name.startswith(PROVIDED) else PROVIDED + name


def _is_own(view: ItemView, session: Session) -> bool:
    own = next((act for act in reversed(view.history) if act.reviewer == session.user), None)
    return view.assignee == session.user or (own is not None and own.outcome == "skip")


def _blind_to(session: Session) -> str | None:
    """Who votes must not be swayed by others' votes."""
    return session.user if session.role is Role.REVIEWER else None


def _set_aside(act: Callable[..., None], item_id: str, body: SetAside, session: Session) -> Response:
    _need_token_or_lead(body.token, session)
    act(item_id, session.user, token=body.token, labels=body.labels, note=body.note)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _need_token_or_lead(token: int | None, session: Session) -> None:
    if token is None and not session.role.includes(Role.LEAD):
        raise Problem(HTTPStatus.FORBIDDEN, "role", "without a lease's token this is for leads")
