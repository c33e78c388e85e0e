"""What the routes use, and who is asking."""

import hmac
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Annotated, Final, NamedTuple

import redis
import structlog
from fastapi import Depends, Request
from fastapi.responses import Response

from schemas import ImageReference
from worker.intake.log import LogError
from worker.review.dead_letters import DeadLetters
from worker.review.desk_api import DeskApi
from worker.review.errors import NotRecorded
from worker.review.http.accounts import Accounts
from worker.review.http.heat_maps import HeatMaps
from worker.review.http.image_links import ImageLinks
from worker.review.http.oidc import OidcProvider
from worker.review.http.past_verdicts import PastVerdicts
from worker.review.http.policies import Policies
from worker.review.http.problems import Problem
from worker.review.http.renditions import Renderer
from worker.review.http.roles import Role
from worker.review.http.sessions import Session, Sessions
from worker.review.intake_numbers import IntakeCounter
from worker.settings import WebhookSettings
from worker.settings.doors import ApiKeySettings
from worker.supervision import Supervisor

log = structlog.get_logger(__name__)

SHOWN: Final = 2000
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "x-csrf-token"
UNATTENDED_HEADER: Final = "x-unattended"
"""Set by the page on requests that it makes by itself while nobody uses it; these do not extend the session."""

SYSTEM_ACTOR: Final = "sluice"
"""The actor in the audit topic of what the desk does by itself."""


class ShownImage(NamedTuple):
    """The image of a past verdict; `frame` is the one of an animation that decided, 0 for a still image."""

    reference: ImageReference
    content_hash: str | None
    frame: int


class ShownVerdicts:
    """The images of the past verdicts that replays have shown last, so that links to them can be followed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, ShownImage] = OrderedDict()

    def put(self, name: str, image: ShownImage) -> None:
        with self._lock:
            self._entries[name] = image
            self._entries.move_to_end(name)
            while len(self._entries) > SHOWN:
                self._entries.popitem(last=False)

    def get(self, name: str) -> ShownImage | None:
        with self._lock:
            return self._entries.get(name)


@dataclass(frozen=True, slots=True)
class AppContext:
    """What the routes use. `origin` is what people type: `https://desk.example.com`."""

    origin: str
    desk: DeskApi
    sessions: Sessions
    redis: redis.Redis
    accounts: Accounts | None
    oidc: OidcProvider | None
    renderer: Renderer
    heat_maps: HeatMaps
    links: ImageLinks
    secret: bytes = field(repr=False)
    api_keys: Mapping[str, ApiKeySettings]
    webhooks: Mapping[str, WebhookSettings]
    policies: Policies
    intake: IntakeCounter
    past_verdicts: PastVerdicts
    shown_verdicts: ShownVerdicts
    dead_letters: DeadLetters
    supervisor: Supervisor
    labels: tuple[str, ...]
    lease_seconds: float
    undo_seconds: float

    def audit(self, actor: str, action: str, **detail: str) -> None:
        """Writes to the audit topic. When Kafka is down the entry is logged instead: people can still sign in."""
        try:
            self.desk.record(actor, action, detail=detail)
        except (LogError, redis.RedisError) as error:
            log.exception("audit_entry_lost", actor=actor, action=action, error=str(error))

    def unassign(self, user: str, actor: str = SYSTEM_ACTOR) -> None:
        """Returns what is assigned to a user who may no longer decide to its queue. When Kafka is down this is logged
        and OrphanedAssignments tries again."""
        try:
            self.desk.unassign(user, actor)
        except (NotRecorded, LogError, redis.RedisError) as error:
            log.warning("unassigning_failed", assignee=user, error=f"{type(error).__name__}: {error}")

    @property
    def secure(self) -> bool:
        return self.origin.startswith("https://")

    @property
    def session_cookie(self) -> str:
        return f"{self._prefix}sluice-session"

    @property
    def visitor_cookie(self) -> str:
        return f"{self._prefix}sluice-visitor"

    @property
    def flow_cookie(self) -> str:
        return f"{self._prefix}sluice-flow"

    @property
    def reason_cookie(self) -> str:
        return f"{self._prefix}sluice-reason"

    @property
    def _prefix(self) -> str:
        # The prefix makes browsers refuse such a cookie from a subdomain or over plain HTTP.
        return "__Host-" if self.secure else ""

    def set_cookie(
        self, response: Response, name: str, value: str, *, seconds: float | None, lax: bool = False
    ) -> None:
        response.set_cookie(
            name,
            value,
            max_age=None if seconds is None else int(seconds),
            path="/",
            secure=self.secure,
            httponly=True,
            samesite="lax" if lax else "strict",
        )

    def drop_cookie(self, response: Response, name: str) -> None:
        response.delete_cookie(name, path="/", secure=self.secure, httponly=True, samesite="strict")


async def app_context(request: Request) -> AppContext:
    """Like all that waits for nothing not a plain function: FastAPI calls each of those on a thread, in a turn of its
    own."""
    context: AppContext = request.app.state.context
    return context


Context = Annotated[AppContext, Depends(app_context)]


def check_csrf(request: Request, context: AppContext, cookie: str) -> None:
    """Refuses a request that another site may have had the browser send."""
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), context.sessions.csrf(cookie).encode()):
        raise Problem(HTTPStatus.FORBIDDEN, "csrf", "the header X-CSRF-Token is missing or stale; load the page again")
    origin = request.headers.get("origin")
    if origin is not None and origin not in {
        context.origin,
        f"{request.url.scheme}://{request.headers.get('host', '')}",
    }:
        raise Problem(HTTPStatus.FORBIDDEN, "foreign-origin", "the request comes from another site")


def signed_in(request: Request, context: Context) -> Session:
    """Who is asking. An unsafe request must carry the session's CSRF token."""
    token = request.cookies.get(context.session_cookie)
    in_use = UNATTENDED_HEADER not in request.headers
    session = context.sessions.find(token, in_use=in_use) if token else None
    if token is None or session is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "not-signed-in", "sign in first, at POST /v1/sign-in or on the page")
    if request.method not in SAFE_METHODS:
        check_csrf(request, context, token)
    return session


SignedIn = Annotated[Session, Depends(signed_in)]


def at_least(role: Role) -> Callable[[Session], Awaitable[Session]]:
    """A dependency that lets in who has this role or a higher one."""

    async def check(session: SignedIn) -> Session:
        need(session, role)
        return session

    return check


def need(session: Session, role: Role) -> None:
    """Raises Problem (403) for a session of a lower role."""
    if not session.role.includes(role):
        detail = f"this needs the role {role.value}; you are a {session.role.value}"
        raise Problem(HTTPStatus.FORBIDDEN, "role", detail)


Reviewer = Annotated[Session, Depends(at_least(Role.REVIEWER))]
Lead = Annotated[Session, Depends(at_least(Role.LEAD))]
Admin = Annotated[Session, Depends(at_least(Role.ADMIN))]
