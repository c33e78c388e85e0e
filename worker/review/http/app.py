"""The application: the API below /v1, the page at /."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from urllib.parse import urlsplit

from fastapi import APIRouter, FastAPI
from pydantic import BaseModel
from starlette.middleware.trustedhost import TrustedHostMiddleware

from worker.review.http import (
    dead_letters,
    decisions,
    events,
    images,
    items,
    page,
    people,
    policy,
    problems,
    queues,
    refusals,
    sign_in,
    statistics,
)
from worker.review.http.departures import Departures
from worker.review.http.door import Door, SignedIn, TheDoor
from worker.review.http.security import SecurityHeaders, SizeLimits

LOOPBACK = ("127.0.0.1", "localhost")

router = APIRouter(tags=["desk"])


class About(BaseModel):
    """What the page needs to know before anything else."""

    version: str
    labels: tuple[str, ...]
    """Reasons that reviewers can give, in the order of their keys."""
    lease_seconds: float
    undo_seconds: float


@router.get("/v1/desk")
def about(_session: SignedIn, door: TheDoor) -> About:
    return About(
        version=version("sluice"),
        labels=door.labels,
        lease_seconds=door.lease_seconds,
        undo_seconds=door.undo_seconds,
    )


@router.get("/healthz", include_in_schema=False)
def healthz() -> dict[str, bool]:
    return {"healthy": True}


def build_app(door: Door) -> FastAPI:
    """The desk as an ASGI application. It hears of events, and looks after who has left, while it is served."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.broadcast = events.Broadcast(door.desk)
        departures = Departures(door.accounts, door.desk) if door.accounts is not None else None
        try:
            yield
        finally:
            app.state.broadcast.close()
            if departures is not None:
                departures.close()

    app = FastAPI(
        title="Sluice review desk",
        version=version("sluice"),
        openapi_url="/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.door = door
    problems.install(app)
    refusals.install(app)
    # A request is held against one route after the other: first what fifty reviewers ask for all the time.
    for part in (decisions, images, queues, events, items, statistics, sign_in, policy, people, dead_letters):
        app.include_router(part.router)
    app.include_router(router)
    page.install(app)
    host = urlsplit(door.origin).hostname or ""
    # A foreign name that resolves to this address (DNS rebinding) gets no answer.
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[host, *(LOOPBACK if host in LOOPBACK else ())])
    app.add_middleware(SizeLimits)
    app.add_middleware(problems.Unexpected)
    app.add_middleware(SecurityHeaders, https=door.secure)
    return app
