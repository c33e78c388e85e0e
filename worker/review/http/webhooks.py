"""Webhooks, for leads: what each sends, how far behind it is, and what its receiver did not take."""

from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, Field

from schemas import Name
from worker.review.http.app_context import AppContext, Context, Lead
from worker.review.http.problems import Problem
from worker.review.http.sign_in import Body
from worker.review.index import keys
from worker.review.undelivered import MOST, Undelivered

router = APIRouter(tags=["webhooks"])

WebhookPath = Annotated[Name, Path()]


class WebhookOut(BaseModel):
    """`host` of its receiver. `behind`: records of the topic that it has not had; absent where no desk delivers."""

    name: str
    host: str
    sends: Literal["decisions", "verdicts"]
    behind: int | None
    undelivered: int


class UndeliveredOut(BaseModel):
    """A message that the receiver did not take in `attempts`, and why. `source`: where its first record stands."""

    id: str
    reason: str
    attempts: int
    failed_at: AwareDatetime
    records: int
    source: str


class Redelivery(Body):
    """Absent `ids`: all."""

    ids: Annotated[tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...], Field(max_length=MOST)] | None = None


class Queued(BaseModel):
    """Messages that are sent again soon, once each; one that fails is listed again."""

    queued: int


@router.get("/v1/webhooks")
def webhooks(_session: Lead, context: Context) -> list[WebhookOut]:
    return [
        WebhookOut(
            name=name,
            host=urlsplit(webhook.url).hostname or "",
            sends=webhook.sends,
            behind=_behind(name, context),
            undelivered=Undelivered(context.redis, name).count(),
        )
        for name, webhook in context.webhooks.items()
    ]


@router.get("/v1/webhooks/{name}/undelivered")
def undelivered(
    name: WebhookPath, _session: Lead, context: Context, limit: Annotated[int, Query(ge=1, le=1000)] = 100
) -> list[UndeliveredOut]:
    """Newest first. At most 10,000 are kept, for 30 days, and none when Redis is lost."""
    return [
        UndeliveredOut(
            id=each.id,
            reason=each.reason,
            attempts=each.attempts,
            failed_at=each.failed_at,
            records=len(each.records),
            source="{}/{}@{}".format(*each.records[0]),
        )
        for each in _messages(name, context).newest(limit)
    ]


@router.post("/v1/webhooks/{name}/redeliver")
def redeliver(name: WebhookPath, body: Redelivery, session: Lead, context: Context) -> Queued:
    queued = _messages(name, context).want(body.ids)
    context.audit(session.user, "webhook-redelivery", webhook=name, messages=str(queued))
    return Queued(queued=queued)


def _behind(name: str, context: AppContext) -> int | None:
    found: Any = context.redis.get(keys.webhook_behind(name))
    return None if found is None else int(found)


def _messages(name: str, context: AppContext) -> Undelivered:
    if name not in context.webhooks:
        raise Problem(HTTPStatus.NOT_FOUND, "no-such-webhook", f"review.webhooks has no {name!r}")
    return Undelivered(context.redis, name)
