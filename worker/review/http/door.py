"""What the routes work with, and who is asking."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Final

import redis
from fastapi import Depends, Request
from fastapi.responses import Response

from worker.review.http.accounts import Accounts
from worker.review.http.image_links import ImageLinks
from worker.review.http.oidc import OidcProvider
from worker.review.http.problems import Problem
from worker.review.http.renditions import Renderer
from worker.review.http.roles import Role
from worker.review.http.sessions import Session, Sessions

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
CSRF_HEADER: Final = "x-csrf-token"


@dataclass(frozen=True, slots=True)
class Door:
    """The parts behind the HTTP door. `origin` is what people type: `https://desk.example.com`."""

    origin: str
    sessions: Sessions
    redis: redis.Redis
    accounts: Accounts | None
    oidc: OidcProvider | None
    renderer: Renderer
    links: ImageLinks
    secret: bytes
    audit: Callable[..., None]
    """`audit(actor, action, **facts)` writes to the audit topic."""

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


def the_door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


TheDoor = Annotated[Door, Depends(the_door)]


def check_csrf(request: Request, door: Door, cookie: str) -> None:
    """Refuses a request that another site may have had the browser send."""
    given = request.headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(given.encode(), door.sessions.csrf(cookie).encode()):
        raise Problem(HTTPStatus.FORBIDDEN, "csrf", "the header X-CSRF-Token is missing or stale; load the page again")
    origin = request.headers.get("origin")
    if origin is not None and origin not in {door.origin, f"{request.url.scheme}://{request.headers.get('host', '')}"}:
        raise Problem(HTTPStatus.FORBIDDEN, "foreign-origin", "the request comes from another site")


def signed_in(request: Request, door: TheDoor) -> Session:
    """Who is asking. An unsafe request must carry the session's CSRF token."""
    token = request.cookies.get(door.session_cookie)
    session = door.sessions.find(token) if token else None
    if token is None or session is None:
        raise Problem(HTTPStatus.UNAUTHORIZED, "not-signed-in", "sign in first, at POST /v1/sign-in or on the page")
    if request.method not in SAFE_METHODS:
        check_csrf(request, door, token)
    return session


SignedIn = Annotated[Session, Depends(signed_in)]


def at_least(role: Role) -> Callable[[Session], Session]:
    """A dependency that lets in who has this role or a higher one."""

    def check(session: SignedIn) -> Session:
        if not session.role.includes(role):
            detail = f"this needs the role {role.value}; you are a {session.role.value}"
            raise Problem(HTTPStatus.FORBIDDEN, "role", detail)
        return session

    return check


Reviewer = Annotated[Session, Depends(at_least(Role.REVIEWER))]
Lead = Annotated[Session, Depends(at_least(Role.LEAD))]
Admin = Annotated[Session, Depends(at_least(Role.ADMIN))]
