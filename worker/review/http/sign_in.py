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
from worker.review.http.app_context import AppContext, Context, SignedIn, check_csrf
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


class SignInOptions(BaseModel):
    """How one can sign in here, and the token that the unsafe requests before signing in must carry."""

    local: bool
    oidc: str | None
    csrf: str
    failure: str | None
    """Why the provider's round trip, that has just ended, did not work."""


class CurrentUser(BaseModel):
    """Who is signed in."""

    user: str
    role: Role
    by: str
    csrf: str


class Invited(BaseModel):
    role: Role


@router.get("/v1/sign-in")
def ways(request: Request, response: Response, context: Context) -> SignInOptions:
    visitor = request.cookies.get(context.visitor_cookie)
    if not visitor or len(visitor) > 128:
        visitor = secrets.token_urlsafe(24)
        context.set_cookie(response, context.visitor_cookie, visitor, seconds=None)
    return SignInOptions(
        local=context.accounts is not None,
        oidc=context.oidc.name if context.oidc is not None else None,
        csrf=context.sessions.csrf(visitor),
        failure=_reason(context, request, response),
    )


@router.post("/v1/sign-in")
def sign_in(credentials: Credentials, request: Request, response: Response, context: Context) -> CurrentUser:
    accounts = local_accounts(context)
    _check_visitor(request, context)
    _limit(request, context)
    name, address = credentials.name.strip().casefold(), _address(request)
    _slow_down(context, name, address)
    with held(_HASHING, HASHING_SECONDS, "checking passwords"):
        user = accounts.check(credentials.name, credentials.password)
    if user is None:
        # The name is not written down: people type passwords into the wrong field.
        context.audit("nobody", "sign-in-refused", address=_address(request))
        raise Problem(HTTPStatus.UNAUTHORIZED, "wrong-credentials", "no user has this name and password")
    GUESSES.forget(context.redis, _pair(name, address))
    context.redis.set(key_of("familiar", _pair(name, address)), 1, ex=FAMILIAR_SECONDS)
    BY_ADDRESS.give_back(context.redis, address)  # a whole office may share one
    return _open(context, request, response, user.name, user.role, "local")


@router.post("/v1/invitations/check")
def check_invitation(body: Token, request: Request, context: Context) -> Invited:
    """What an invitation would make of somebody."""
    _check_visitor(request, context)
    _limit(request, context)
    role = local_accounts(context).invited_role(body.token)
    if role is None:
        raise _stale()
    return Invited(role=role)


@router.post("/v1/invitations/accept")
def accept(body: Acceptance, request: Request, response: Response, context: Context) -> CurrentUser:
    """Makes the user, or gives the one whose password is reset another one, and signs in."""
    _check_visitor(request, context)
    before = context.sessions.now()
    _limit(request, context)
    try:
        with held(_HASHING, HASHING_SECONDS, "checking passwords"):
            user = local_accounts(context).accept(body.token, body.name, body.password)
    except AccountsError as error:
        raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    if user is None:
        raise _stale()
    BY_ADDRESS.give_back(context.redis, _address(request))
    context.sessions.close_all(user.name)  # where it was a reset, whoever knew the old password is out
    context.audit(user.name, "user-made" if user.created_at >= before else "password-reset", role=user.role.value)
    return _open(context, request, response, user.name, user.role, "local")


@router.put("/v1/session/password")
def change_password(
    body: PasswordChange, request: Request, response: Response, session: SignedIn, context: Context
) -> CurrentUser:
    """Of who is signed in; all their other sessions end."""
    accounts = local_accounts(context)
    address = _address(request)
    _slow_down(context, session.user, address)
    with held(_HASHING, HASHING_SECONDS, "checking passwords"):
        if session.by != "local" or accounts.check(session.user, body.password) is None:
            raise Problem(HTTPStatus.FORBIDDEN, "wrong-credentials", "that is not your present password")
        try:
            accounts.change_password(session.user, body.new_password)
        except AccountsError as error:
            raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    GUESSES.forget(context.redis, _pair(session.user, address))
    context.sessions.close_all(session.user)
    context.audit(session.user, "password-changed")
    return _open(context, request, response, session.user, session.role, "local")


@router.get("/v1/session")
def me(session: SignedIn) -> CurrentUser:
    return _me(session)


@router.delete("/v1/session", status_code=HTTPStatus.NO_CONTENT)
def sign_out(session: SignedIn, context: Context) -> Response:
    context.sessions.close(session)
    context.audit(session.user, "sign-out")
    response = Response(status_code=HTTPStatus.NO_CONTENT)
    context.drop_cookie(response, context.session_cookie)
    # Images that this person has seen are gone with them, also from the back/forward cache.
    response.headers["Clear-Site-Data"] = '"cache"'
    return response


@router.get("/v1/sign-in/oidc", response_class=RedirectResponse, status_code=HTTPStatus.SEE_OTHER)
def to_provider(request: Request, context: Context) -> Response:
    provider = _provider(context)
    # Each may have to wait for the provider, on a thread that others need.
    if wait := BY_ADDRESS.take(context.redis, _address(request)):
        return _failed(context, OidcError(f"too many attempts; wait {wait} seconds"))
    try:
        address, flow = provider.begin(context.origin + CALLBACK)
    except OidcError as error:
        return _failed(context, error)
    BY_ADDRESS.give_back(context.redis, _address(request))
    response = RedirectResponse(address, status_code=HTTPStatus.SEE_OTHER)
    former = context.sessions.key(request.cookies.get(context.session_cookie, ""))
    packed = _flows(context).dumps([flow.state, flow.nonce, flow.verifier, former])
    # Lax: the way back comes from the provider's site, so that the session's own cookie does not come with it.
    context.set_cookie(response, context.flow_cookie, str(packed), seconds=FLOW_SECONDS, lax=True)
    return response


@router.get(CALLBACK, response_class=RedirectResponse, status_code=HTTPStatus.SEE_OTHER)
def from_provider(
    request: Request,
    context: Context,
    state: Annotated[str, Query(max_length=512)] = "",
    code: Annotated[str, Query(max_length=4096)] = "",
    error: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    provider = _provider(context)
    if wait := BY_ADDRESS.take(context.redis, _address(request)):
        return _failed(context, OidcError(f"too many attempts; wait {wait} seconds"))
    if error or not code:
        return _failed(context, OidcError("the provider did not let you in"))
    try:
        flow, former = _flow(context, request.cookies.get(context.flow_cookie, ""), state)
        identity = provider.finish(flow, code, context.origin + CALLBACK)
    except OidcError as failure:
        if isinstance(failure, NoRole):
            context.unassign(failure.user)
            _end_invitations(context, failure.user)
        return _failed(context, failure)
    BY_ADDRESS.give_back(context.redis, _address(request))
    if not identity.role.includes(Role.REVIEWER):  # which the desk hears of only now
        context.unassign(identity.user)
    if not identity.role.includes(Role.ADMIN):
        _end_invitations(context, identity.user)
    response = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    context.drop_cookie(response, context.flow_cookie)
    _open(context, request, response, identity.user, identity.role, "oidc", former)
    return response


def _open(
    context: AppContext, request: Request, response: Response, user: str, role: Role, by: str, former: str | None = None
) -> CurrentUser:
    """Signs in. The session that this browser had ends; `former` is its key, where the request has no cookie of it."""
    context.sessions.end(former or context.sessions.key(request.cookies.get(context.session_cookie, "")))
    token, session = context.sessions.open(user, role, by)
    context.set_cookie(response, context.session_cookie, token, seconds=session.expires_at - context.sessions.now())
    context.audit(user, "sign-in", by=by, role=role.value)
    log.info("signed_in", user=user, role=role.value, by=by)
    return _me(session)


def _me(session: Session) -> CurrentUser:
    return CurrentUser(user=session.user, role=session.role, by=session.by, csrf=session.csrf)


def local_accounts(context: AppContext) -> Accounts:
    if context.accounts is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-local-users", "web.local_users is off; sign in by the provider")
    return context.accounts


def _provider(context: AppContext) -> OidcProvider:
    if context.oidc is None:
        raise Problem(HTTPStatus.NOT_FOUND, "no-oidc", "web.oidc is not set; sign in with name and password")
    return context.oidc


def _check_visitor(request: Request, context: AppContext) -> None:
    check_csrf(request, context, request.cookies.get(context.visitor_cookie, ""))


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def _limit(request: Request, context: AppContext) -> None:
    if wait := BY_ADDRESS.take(context.redis, _address(request)):
        raise _too_many(wait)


def _slow_down(context: AppContext, name: str, address: str) -> None:
    """Raises Problem where a user's password is guessed, for longer each time. Guesses from elsewhere do not count at
    an address that the user has signed in from."""
    wait = GUESSES.take(context.redis, _pair(name, address))
    if not wait and not context.redis.exists(key_of("familiar", _pair(name, address))):
        wait = STRANGERS.take(context.redis, name)
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


def _end_invitations(context: AppContext, user: str) -> None:
    """Those that somebody made who is no admin any more; local users' end in the users' file itself."""
    if context.accounts is not None:
        context.accounts.revoke_of(user)


def _stale() -> Problem:
    return Problem(HTTPStatus.GONE, "invitation-stale", "this invitation was used or is too old; ask for another")


def _flows(context: AppContext) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(context.secret, salt="sluice.desk.oidc-flow")


def _flow(context: AppContext, packed: str, state: str) -> tuple[Flow, str]:
    """The flow that this browser began, and the key of the session that it had then; its cookie proves that the answer
    was not slipped to it by somebody else."""
    try:
        *begun, former = _flows(context).loads(packed, max_age=FLOW_SECONDS)
        flow = Flow(*begun)
    except (BadData, TypeError, ValueError):
        raise OidcError("that took too long, or cookies are off; try again") from None
    if not secrets.compare_digest(flow.state.encode(), state.encode()):
        raise OidcError("the answer does not belong to this browser's question; try again")
    return flow, str(former)


def _failed(context: AppContext, error: OidcError) -> Response:
    """Back to the page, which finds the reason in a short-lived cookie rather than in an address."""
    log.warning("oidc_sign_in_failed", error=str(error))
    response = RedirectResponse("/#sign-in-failed", status_code=HTTPStatus.SEE_OTHER)
    context.drop_cookie(response, context.flow_cookie)
    context.set_cookie(
        response, context.reason_cookie, str(_reasons(context).dumps(str(error))), seconds=REASON_SECONDS, lax=True
    )
    return response


def _reasons(context: AppContext) -> URLSafeTimedSerializer:
    return URLSafeTimedSerializer(context.secret, salt="sluice.desk.reason")


def _reason(context: AppContext, request: Request, response: Response) -> str | None:
    packed = request.cookies.get(context.reason_cookie)
    if packed is None:
        return None
    context.drop_cookie(response, context.reason_cookie)
    try:
        return str(_reasons(context).loads(packed, max_age=REASON_SECONDS))
    except BadData:
        return None
