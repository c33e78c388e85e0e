"""Errors as `application/problem+json` (RFC 9457): what was wrong, where, and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.explain import dotted

log = structlog.get_logger(__name__)

MANY = 20
"""At most so many faults of a body are listed."""


class Problem(Exception):
    """An error response. `kind` is for programs, `detail` for people."""

    def __init__(
        self, status: HTTPStatus, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})
        self.more = more


def response(problem: Problem) -> JSONResponse:
    """The problem as a response."""
    body = {
        "type": f"urn:sluice:problem:{problem.kind}",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "detail": problem.detail,
        **problem.more,
    }
    return JSONResponse(
        body, status_code=problem.status.value, headers=problem.headers, media_type="application/problem+json"
    )


def install(app: FastAPI) -> None:
    """Makes every error of the application a problem."""

    @app.exception_handler(Problem)
    async def _problem(_request: Request, problem: Problem) -> JSONResponse:
        return response(problem)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_request: Request, error: RequestValidationError) -> JSONResponse:
        # The input is not repeated: it may be a password in the wrong place.
        faults = [
            {"where": dotted(detail["loc"]), "what": str(detail["msg"]).removeprefix("Value error, ")}
            for detail in error.errors()[:MANY]
        ]
        detail = "; ".join(f"{fault['where']}: {fault['what']}" for fault in faults[:3])
        return response(Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", detail, faults=faults))

    @app.exception_handler(HTTPException)
    async def _http(_request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        kind = status.phrase.lower().replace(" ", "-")
        return response(Problem(status, kind, str(error.detail), headers=error.headers))


class Unexpected:
    """Turns unexpected exceptions into a 500 response. Details are in the log only."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception:
            if scope["type"] != "http":
                raise
            log.exception("desk_request_failed", method=scope["method"], path=scope["path"])
            if started:
                raise  # the connection is closed, so that nobody takes half an answer for a whole one
            detail = "an error in the desk; its log has the details"
            problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail)
            await response(problem)(scope, receive, send)
