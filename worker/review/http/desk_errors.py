"""The desk's own errors, as problems."""

from http import HTTPStatus

import redis
import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from worker.intake.log import LogError, TopicMissing
from worker.review.errors import DeskError, LeaseLost, NotPossible, NotReady, NotRecorded, UnknownItem
from worker.review.http.problems import Problem, response
from worker.review.waiting import WaitedTooLong

log = structlog.get_logger(__name__)

RETRY_SECONDS = "2"

_KINDS: dict[type[DeskError], tuple[HTTPStatus, str]] = {
    UnknownItem: (HTTPStatus.NOT_FOUND, "unknown-item"),
    LeaseLost: (HTTPStatus.CONFLICT, "lease-lost"),
    NotPossible: (HTTPStatus.CONFLICT, "not-possible"),
    NotReady: (HTTPStatus.SERVICE_UNAVAILABLE, "not-ready"),
    NotRecorded: (HTTPStatus.SERVICE_UNAVAILABLE, "not-recorded"),
}


def kind_of(error: DeskError) -> str:
    """The word for programs."""
    return _KINDS.get(type(error), (HTTPStatus.CONFLICT, "refused"))[1]


def install(app: FastAPI) -> None:
    """Makes the desk's errors, and those of the servers behind it, problems."""

    @app.exception_handler(DeskError)
    async def _refused(_request: Request, error: DeskError) -> JSONResponse:
        status, kind = _KINDS.get(type(error), (HTTPStatus.CONFLICT, "refused"))
        headers = {"Retry-After": RETRY_SECONDS} if status is HTTPStatus.SERVICE_UNAVAILABLE else {}
        return response(Problem(status, kind, str(error), headers=headers))

    @app.exception_handler(WaitedTooLong)
    async def _busy(_request: Request, error: WaitedTooLong) -> JSONResponse:
        headers = {"Retry-After": RETRY_SECONDS}
        return response(Problem(HTTPStatus.SERVICE_UNAVAILABLE, "busy", str(error), headers=headers))

    async def away(request: Request, error: Exception) -> JSONResponse:
        log.warning("desk_server_away", path=request.url.path, error=f"{type(error).__name__}: {error}")
        detail = "a server behind the desk does not answer; nothing was recorded, try again in a moment"
        return response(
            Problem(HTTPStatus.SERVICE_UNAVAILABLE, "server-away", detail, headers={"Retry-After": RETRY_SECONDS})
        )

    async def topic_missing(_request: Request, error: Exception) -> JSONResponse:
        # Trying again does not help, and the message says what does.
        return response(Problem(HTTPStatus.CONFLICT, "topic-missing", str(error)))

    app.add_exception_handler(TopicMissing, topic_missing)
    app.add_exception_handler(LogError, away)
    app.add_exception_handler(redis.RedisError, away)
