"""Signing in and out: local users, invitations, and the provider's round trip."""

import secrets
import threading
from http import HTTPStatus
from typing import Annotated, Final

import structlog
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from itsdangerous import BadData, URLSafeTimedSerializer
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from worker.review.http.accounts import MAX_PASSWORD, MIN_PASSWORD, Accounts, AccountsError
from worker.review.http.door import Door, SignedIn, TheDoor, check_csrf
from worker.review.http.oidc import Flow, NoRole, OidcError, OidcProvider
from worker.review.http.problems import Problem
from worker.review.http.rate_limit import GrowingDelay, RateLimit, key_of
from worker.review.http.roles import Role
from worker.review.http.sessions import Session
from worker.review.waiting import held

log = structlog.get_logger(__name__)
router = APIRouter(tags=["sign-in"])

GUESSES: Final = GrowingDelay("guesses", free=5, first_seconds=2, longest_seconds=15 * 60, memory_seconds=24 * 3600)
"""Of one user's password, from one address: whoever guesses locks out nobody who sits elsewhere."""
STRANGERS: Final = GrowingDelay(
    "strangers", free=50, first_seconds=2, longest_seconds=15 * 60, memory_seconds=24 * 3600
)
"""Of one user's password, from all addresses together from which that user has not signed in before."""
FAMILIAR_SECONDS: Final = 90 * 24 * 3600
BY_ADDRESS: Final = RateLimit("address", most=50, seconds=15 * 60)
FLOW_SECONDS: Final = 10 * 60
REASON_SECONDS: Final = 60
CALLBACK: Final = "/v1/sign-in/oidc/callback"

HASHING_SECONDS: Final = 15.0
_HASHING = threading.BoundedSemaphore(2)
"""Argon2 takes 64 MiB for each password that is looked at."""

UserName = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.@+-]*$"),
]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Credentials(Body):
    name: Annotated[str, Field(min_length=1, max_length=256)]
    password: Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD)]


class Token(Body):
    token: Annotated[str, Field(min_length=1, max_length=128)]


class Acceptance(Token):
    name: UserName
    password: Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class PasswordChange(Body):
    """`password` is the present one."""

    password: Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD)]
    new_password: Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]


class Ways(BaseModel):
    """How one can sign in here, and the token that the unsafe requests before signing in must carry."""

    local: bool
    oidc: str | None
    csrf: str
    failure: str | None
    """Why the provider's round trip, that has just ended, did not work."""


class Me(BaseModel):
    """Who is signed in."""

    user: str
    role: Role
    by: str
    csrf: str


class Invited(BaseModel):
    role: Role


@router.get("/v1/sign-in")
def ways(request: Request, response: Response, door: TheDoor) -> Ways:
    visitor = request.cookies.get(door.visitor_cookie)
    if not visitor or len(visitor) > 128:
        visitor = secrets.token_urlsafe(24)
        door.set_cookie(response, door.visitor_cookie, visitor, seconds=None)
    return Ways(
        local=door.accounts is not None,
        oidc=door.oidc.name if door.oidc is not None else None,
        csrf=door.sessions.csrf(visitor),
        failure=_reason(door, request, response),
    )


@router.post("/v1/sign-in")
def sign_in(credentials: Credentials, request: Request, response: Response, door: TheDoor) -> Me:
    accounts = local_accounts(door)
    _check_visitor(request, door)
    _limit(request, door)
    name, address = credentials.name.strip().casefold(), _address(request)
    _slow_down(door, name, address)
    with held(_HASHING, HASHING_SECONDS, "checking passwords"):
        user = accounts.check(credentials.name, credentials.password)
    if user is None:
        # The name is not written down: people type passwords into the wrong field.
        door.audit("nobody", "sign-in-refused", address=_address(request))
        raise Problem(HTTPStatus.UNAUTHORIZED, "wrong-credentials", "no user has this name and password")
    GUESSES.forget(door.redis, _pair(name, address))
    door.redis.set(key_of("familiar", _pair(name, address)), 1, ex=FAMILIAR_SECONDS)
    BY_ADDRESS.give_back(door.redis, address)  # a whole office may share one
    return _open(door, request, response, user.name, user.role, "local")


@router.post("/v1/invitations/check")
def check_invitation(body: Token, request: Request, door: TheDoor) -> Invited:
    """What an invitation would make of somebody."""
    _check_visitor(request, door)
    _limit(request, door)
    role = local_accounts(door).invited_role(body.token)
    if role is None:
        raise _stale()
    return Invited(role=role)


@router.post("/v1/invitations/accept")
def accept(body: Acceptance, request: Request, response: Response, door: TheDoor) -> Me:
    """Makes the user, or gives the one whose password is reset another one, and signs in."""
    _check_visitor(request, door)
    before = door.sessions.now()
    _limit(request, door)
    try:
        with held(_HASHING, HASHING_SECONDS, "checking passwords"):
            user = local_accounts(door).accept(body.token, body.name, body.password)
    except AccountsError as error:
        raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    if user is None:
        raise _stale()
    BY_ADDRESS.give_back(door.redis, _address(request))
    door.sessions.close_all(user.name)  # where it was a reset, whoever knew the old password is out
    door.audit(user.name, "user-made" if user.created_at >= before else "password-reset", role=user.role.value)
    return _open(door, request, response, user.name, user.role, "local")


@router.put("/v1/session/password")
def change_password(body: PasswordChange, request: Request, response: Response, session: SignedIn, door: TheDoor) -> Me:
    """Of who is signed in; all their other sessions end."""
    accounts = local_accounts(door)
    address = _address(request)
    _slow_down(door, session.user, address)
    with held(_HASHING, HASHING_SECONDS, "checking passwords"):
        if session.by != "local" or accounts.check(session.user, body.password) is None:
            raise Problem(HTTPStatus.FORBIDDEN, "wrong-credentials", "that is not your present password")
        try:
            accounts.change_password(session.user, body.new_password)
        except AccountsError as error:
            raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    GUESSES.forget(door.redis, _pair(session.user, address))
    door.sessions.close_all(session.user)
    door.audit(session.user, "password-changed")
    return _open(door, request, response, session.user, session.role, "local")


@router.get("/v1/session")
def me(session: SignedIn) -> Me:
    return _me(session)


@router.delete("/v1/session", status_code=HTTPStatus.NO_CONTENT)
def sign_out(session: SignedIn, door: TheDoor) -> Response:
    door.sessions.close(session)
    door.audit(session.user, "sign-out")
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    door.drop_cookie(response, door.session_cookie)
    # Images that this person has seen are gone with them, also from the back/forward cache.
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@router.get("/v1/sign-in/oidc", response_class=RedirectResponse, status_code=HTTPStatus.SEE_OTHER)
def to_provider(request: Request, door: TheDoor) -> Response:
    provider = _provider(door)
    # Each may have to wait for the provider, on a thread that others need.
    if wait := BY_ADDRESS.take(door.redis, _address(request)):
        return _failed(door, OidcError(f"too many attempts; wait {wait} seconds"))
    try:
        address, flow = provider.begin(door.origin + CALLBACK)
    except OidcError as error:
        return _failed(door, error)
    BY_ADDRESS.give_back(door.redis, _address(request))
    response = RedirectResponse(address, status_code=HTTPStatus.SEE_OTHER)
    former = door.sessions.key(request.cookies.get(door.session_cookie, ""))
    packed = _flows(door).dumps([flow.state, flow.nonce, flow.verifier, former])
    # Lax: the way back comes from the provider's site, so that the session's own cookie does not come with it.
    door.set_cookie(response, door.flow_cookie, str(packed), seconds=FLOW_SECONDS, lax=True)
    return response


@router.get(CALLBACK, response_class=RedirectResponse, status_code=HTTPStatus.SEE_OTHER)
def from_provider(
    request: Request,
    door: TheDoor,
    state: Annotated[str, Query(max_length=512)] = "",
    code: Annotated[str, Query(max_length=4096)] = "",
    error: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    provider = _provider(door)
    if wait := BY_ADDRESS.take(door.redis, _address(request)):
        return _failed(door, OidcError(f"too many attempts; wait {wait} seconds"))
    if error or not code:
        return _failed(door, OidcError("the provider did not let you in"))
    try:
        flow, former = _flow(door, request.cookies.get(door.flow_cookie, ""), state)
        identity = provider.finish(flow, code, door.origin + CALLBACK)
    except OidcError as failure:
        if isinstance(failure, NoRole):
            door.unassign(failure.user)
            _end_invitations(door, failure.user)
        return _failed(door, failure)
    BY_ADDRESS.give_back(door.redis, _address(request))
    if not identity.role.includes(Role.REVIEWER):  # which the desk hears of only now
        door.unassign(identity.user)
    if not identity.role.includes(Role.ADMIN):
        _end_invitations(door, identity.user)
    response = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    door.drop_cookie(response, door.flow_cookie)
    _open(door, request, response, identity.user, identity.role, "oidc", former)
    return response


def _open(
    door: Door, request: Request, response: Response, user: str, role: Role, by: str, former: str | None = None
) -> Me:
    """Signs in. The session that this browser had ends; `former` is its key, where the request has no cookie of it."""
    door.sessions.end(former or door.sessions.key(request.cookies.get(door.session_cookie, "")))
    token, session = door.sessions.open(user, role, by)
    door.set_cookie(response, door.session_cookie, token, seconds=session.expires_at - door.sessions.now())
    door.audit(user, "sign-in", by=by, role=role.value)
    log.info("signed_in", user=user, role=role.value, by=by)
    return _me(session)


def _me(session: Session) -> Me:
    return Me(user=session.user, role=session.role, by=session.by, csrf=session.csrf)


def local_accounts(door: Door) -> Accounts:
    if door.accounts is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-local-users", "web.local_users is off; sign in by the provider")
    return door.accounts


def _provider(door: Door) -> OidcProvider:
    if door.oidc is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-oidc", "web.oidc is not set; sign in with name and password")
    return door.oidc


def _check_visitor(request: Request, door: Door) -> None:
    check_csrf(request, door, request.cookies.get(door.visitor_cookie, ""))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _limit(request: Request, door: Door) -> None:
    if wait := BY_ADDRESS.take(door.redis, _address(request)):
        raise _too_many(wait)


def _slow_down(door: Door, name: str, address: str) -> None:
    """Raises Problem where a user's password is guessed, for longer each time. Guesses from elsewhere do not count at
    an address that the user has signed in from."""
    wait = GUESSES.take(door.redis, _pair(name, address))
    if not wait and not door.redis.exists(key_of("familiar", _pair(name, address))):
        wait = STRANGERS.take(door.redis, name)
    if wait:
        raise _too_many(wait)


def _pair(name: str, address: str) -> str:
    return f"{name}\0{address}"


def _too_many(wait: int) -> Problem:
    return Problem(
        HTTPStatus.TOO_MANY_REQUESTS,
        "too-many-attempts",
        f"too many attempts; wait {wait} seconds",
        headers={"Retry-After": str(wait)},
    )


def _end_invitations(door: Door, user: str) -> None:
    """Those that somebody made who is no admin any more; local users' end in the users' file itself."""
    if door.accounts is not None:
        door.accounts.revoke_of(user)


def _stale() -> Problem:
    return Problem(HTTPStatus.GONE, "invitation-stale", "this invitation was used or is too old; ask for another")


def _flows(door: Door) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(door.secret, salt="sluice.desk.oidc-flow")


def _flow(door: Door, packed: str, state: str) -> tuple[Flow, str]:
    """The flow that this browser began, and the key of the session that it had then; its cookie proves that the answer
    was not slipped to it by somebody else."""
    try:
        *begun, former = _flows(door).loads(packed, max_age=FLOW_SECONDS)
        flow = Flow(*begun)
    except (BadData, TypeError, ValueError):
        raise OidcError("that took too long, or cookies are off; try again") from None
    if not secrets.compare_digest(flow.state.encode(), state.encode()):
        raise OidcError("the answer does not belong to this browser's question; try again")
    return flow, str(former)


def _failed(door: Door, error: OidcError) -> Response:
    """Back to the page, which finds the reason in a short-lived cookie rather than in an address."""
    log.warning("oidc_sign_in_failed", error=str(error))
    response = RedirectResponse("/#sign-in-failed", status_code=HTTPStatus.SEE_OTHER)
    door.drop_cookie(response, door.flow_cookie)
    door.set_cookie(
        response, door.reason_cookie, str(_reasons(door).dumps(str(error))), seconds=REASON_SECONDS, lax=True
    )
    return response


def _reasons(door: Door) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(door.secret, salt="sluice.desk.reason")


def _reason(door: Door, request: Request, response: Response) -> str | None:
    packed = request.cookies.get(door.reason_cookie)
    if packed is None:
        return None
    door.drop_cookie(response, door.reason_cookie)
    try:
        return str(_reasons(door).loads(packed, max_age=REASON_SECONDS))
    except BadData:
        return None
