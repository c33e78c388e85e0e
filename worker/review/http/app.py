"""The application: the API below /v1, the page at /."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from importlib.metadata import version
from urllib.parse import urlsplit

import redis
from anyio import to_thread
from fastapi import APIRouter, FastAPI, Response
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from worker.intake.log import LogError
from worker.review.errors import DeskError
from worker.review.http import (
    dead_letters,
    decisions,
    desk_errors,
    events,
    images,
    items,
    page,
    people,
    policy,
    problems,
    queues,
    sign_in,
    statistics,
    verdicts,
    webhooks,
)
from worker.review.http.app_context import AppContext, Context, SignedIn
from worker.review.http.orphaned_assignments import OrphanedAssignments
from worker.review.http.security import SecurityHeaders, SizeLimits

EXPECTED = (DeskError, LogError, redis.RedisError)
"""What loops raise while a server is away."""
CLOSE_SECONDS = 5.0
LOOPBACK = ("127.0.0.1", "localhost")

router = APIRouter(tags=["desk"])


class About(BaseModel):
    """What the page needs to know before anything else."""

    version: str
    labels: tuple[str, ...]
    """Reasons that reviewers can give, in the order of their keys."""
    lease_seconds: float
    undo_seconds: float
    has_webhooks: bool


@router.get("/v1/desk")
def about(_session: SignedIn, context: Context) -> About:
    return About(
        version=version("sluice"),
        labels=context.labels,
        lease_seconds=context.lease_seconds,
        undo_seconds=context.undo_seconds,
        has_webhooks=bool(context.webhooks),
    )


class HealthOut(BaseModel):
    healthy: bool
    reasons: tuple[str, ...]


@router.get("/healthz", include_in_schema=False)
async def healthz(response: Response, context: Context) -> HealthOut:
    """503 with the names of the loops that keep failing. It needs no sign-in, so it says nothing else."""
    problems = context.supervisor.health_problems()
    if problems:
        response.status_code = HTTPStatus.SERVICE_UNAVAILABLE
    return HealthOut(healthy=not problems, reasons=problems)


def build_app(context: AppContext) -> FastAPI:
    """The desk as an ASGI application. Its loops run while it is served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.broadcast = events.Broadcast(context.desk)
        loops = [context.supervisor.start("desk-events", app.state.broadcast.run, expected=EXPECTED)]
        if context.accounts is not None:
            orphans = OrphanedAssignments(context.accounts, context.desk)
            loops.append(context.supervisor.start("orphaned-assignments", orphans.run, expected=EXPECTED))
        try:
            yield
        finally:
            app.state.broadcast.close()
            for loop in loops:
                await to_thread.run_sync(context.supervisor.stop, loop, CLOSE_SECONDS)

    app = FastAPI(
        title="Sluice review desk",
        version=version("sluice"),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
        lifespan=lifespan,
    )
    app.state.context = context
    problems.install(app)
    desk_errors.install(app)
    # A request is held against one route after the other: first what fifty reviewers ask for all the time.
    for part in (
        decisions,
        images,
        queues,
        events,
        items,
        statistics,
        verdicts,
        sign_in,
        policy,
        people,
        dead_letters,
        webhooks,
    ):
        app.include_router(part.router)
    app.include_router(router)
    page.install(app)
    host = urlsplit(context.origin).hostname or ""
    # A foreign name that resolves to this address (DNS rebinding) gets no answer.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, *(LOOPBACK if host in LOOPBACK else ())])
    app.add_middleware(SizeLimits)
    app.add_middleware(problems.Unexpected)
    app.add_middleware(SecurityHeaders, https=context.secure)
    return app
