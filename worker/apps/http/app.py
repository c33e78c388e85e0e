"""The gateway as an ASGI application: `POST /v1/score`, and `/v2` for health and metadata."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from schemas import Digest, FailureReason, Identifier, ImageEvent, Provenance, Route, Scores, Timings
from worker.apps.http import inference_protocol, openapi
from worker.apps.http.body import read_event
from worker.apps.http.callers import Callers
from worker.apps.http.inference_protocol import Readiness
from worker.apps.http.limits import RETRY_SECONDS, Limits
from worker.apps.http.meter import UNFINISHED, Meter
from worker.apps.http.openapi import Described
from worker.apps.http.scoring import Judged, NotJudged, Scoring
from worker.policy import Policy
from worker.review.http import problems
from worker.review.http.problems import Problem
from worker.scoring.engine import EngineError
from worker.scoring.manifest import ModelManifest

log = structlog.get_logger(__name__)

_LATER: Final = {"Retry-After": RETRY_SECONDS}


class ScoreAnswer(BaseModel):
    """The scores and route of an image. Nothing is written to a topic; the caller acts on `route`."""

    event_id: Identifier
    content_hash: Digest
    scores: Scores
    provenance: Provenance | None
    route: Route
    cached: bool
    model: Digest
    policy: Digest
    timings: Timings


@dataclass(frozen=True, slots=True)
class Gateway:
    """The parts of the gateway that requests use."""

    manifest: ModelManifest
    scoring: Scoring
    readiness: Readiness
    policy: Callable[[], Policy]
    callers: Callers
    limits: Limits
    timeout_seconds: float
    meter: Meter
    now: Callable[[], datetime]


def build_app() -> FastAPI:
    """Builds the application. `state.gateway` is its Gateway, which may be replaced between requests. Every error is a
    problem document (RFC 9457).
    """
    app = Described(
        title="Sluice gateway",
        version=version("sluice"),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from other sites
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy it would redirect callers, with their keys, to an http:// address
    )
    problems.install(app)
    app.add_exception_handler(Exception, _unexpected)
    app.include_router(inference_protocol.router)
    app.add_api_route(
        "/v1/score",
        score,
        methods=["POST"],
        response_model=ScoreAnswer,
        openapi_extra=openapi.SCORE,
        responses=openapi.OF_SCORE,
    )
    return app


async def score(request: Request) -> ScoreAnswer:
    """Judge one image now, as the stream would.

    An answer other than 200 means that the image was not judged: do not let it pass. If the event could be read, such
    an answer has a `route` to review, as in the stream.
    """
    gateway: Gateway = request.app.state.gateway
    caller = gateway.callers.identify(request)
    with gateway.meter.request(caller) as note:
        try:
            answer = await _score(gateway, caller, request)
        except Problem as problem:
            note(problem.kind)
            raise
        note(answer.route.action)
        return answer


async def _score(gateway: Gateway, caller: str, request: Request) -> ScoreAnswer:
    policy = gateway.policy()
    seat = gateway.limits.enter(caller)
    flight: asyncio.Future[Judged] | None = None
    event: ImageEvent | None = None
    try:
        async with asyncio.timeout(gateway.timeout_seconds):
            event = await read_event(request.headers, await seat.read(request), gateway.now())
            flight = gateway.scoring.begin(event)
            # A judgement that has started continues, for others who wait for it, and keeps its place in the limits even
            # if its caller disconnects.
            flight.add_done_callback(lambda _: seat.leave())
            judged = await asyncio.shield(flight)
    except Problem as problem:
        raise (_failed_closed(problem, policy, event) if problem.status in _UNREAD else problem) from None
    except Exception as error:
        raise _failed_closed(_problem(error, gateway.timeout_seconds, event), policy, event) from error
    finally:
        if flight is None:
            seat.leave()
    return ScoreAnswer(
        event_id=judged.event.id,
        content_hash=judged.content_hash,
        scores=judged.scores,
        provenance=judged.provenance,
        route=judged.route,
        cached=judged.cached,
        model=gateway.manifest.digest,
        policy=judged.policy,
        timings=judged.timings,
    )


_UNREAD: Final = (HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
"""Problems that would be malformed events in the stream. They get a route too."""


def _failed_closed(problem: Problem, policy: Policy, event: ImageEvent | None) -> Problem:
    """Adds the route that the stream gives to events that cannot be judged."""
    tenant, priority = (event.tenant, event.priority) if event is not None else ("default", 50)
    problem.more["route"] = policy.failure_route(tenant, priority).model_dump(mode="json")
    return problem


def _problem(error: Exception, timeout_seconds: float, event: ImageEvent | None) -> Problem:
    match error:
        case NotJudged(failure=failure, retriable=True):
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, _kind(failure.reason), failure.message, headers=_LATER)
        case NotJudged(failure=failure):
            fault_of_ours = failure.reason in (FailureReason.INTERNAL_ERROR, FailureReason.POLICY_FAILED)
            status = HTTPStatus.INTERNAL_SERVER_ERROR if fault_of_ours else HTTPStatus.UNPROCESSABLE_ENTITY
            return Problem(status, _kind(failure.reason), failure.message)
        case EngineError():
            return Problem(
                HTTPStatus.SERVICE_UNAVAILABLE, _kind(FailureReason.ENGINE_FAILED), str(error), headers=_LATER
            )
        case ClientDisconnect():  # the caller has disconnected
            return Problem(HTTPStatus.BAD_REQUEST, UNFINISHED, "the body is incomplete")
        case TimeoutError():
            detail = f"no answer within {timeout_seconds:g} s (gateway.timeout_seconds)"
            return Problem(HTTPStatus.GATEWAY_TIMEOUT, "timed-out", detail, headers=_LATER)
        case _:
            log.error("scoring_failed", event_id=event.id if event is not None else None, exc_info=error)
            detail = "internal error; see the gateway's log"
            return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, _kind(FailureReason.INTERNAL_ERROR), detail)


def _kind(reason: FailureReason) -> str:
    return reason.value.replace("_", "-")


async def _unexpected(_request: Request, _error: Exception) -> JSONResponse:
    """The error itself is raised to the server, which logs it."""
    detail = "internal error; see the gateway's log"
    return problems.response(Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal-error", detail))
