"""Errors as `application/problem+json` (RFC 9457): what was wrong, where, and what to do."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from schemas.explain import dotted

log = structlog.get_logger(__name__)

MANY = 20
"""At most so many faults of a body are listed."""


class Problem(Exception):
    """An answer that says no. `kind` is a word for programs, `detail` a sentence for people."""

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

    @app.exception_handler(Exception)
    async def _unexpected(request: Request, error: Exception) -> JSONResponse:
        log.error("desk_request_failed", method=request.method, path=request.url.path, exc_info=error)
        detail = "a fault of ours; the log of the desk tells more"
        return response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail))
