"""Lets programs read what people read: a route's dependency that takes a session or an API key with a scope."""

import math
from collections.abc import Callable
from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Final

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from worker.review.http.app_context import AppContext, Context, need, signed_in
from worker.review.http.bearer_keys import name_of_key
from worker.review.http.problems import Problem
from worker.review.http.rate_limit import RateLimit
from worker.review.http.roles import Role
from worker.review.http.sessions import Session

PREFIX: Final = "api-key:"
"""Before the name of a key, where a user's name stands otherwise."""


class Scope(StrEnum):
    """What an API key may read, as `web.api_keys` spells it."""

    ITEMS = "items:read"
    STATISTICS = "statistics:read"
    VERDICTS = "verdicts:read"


# For the OpenAPI document only; `name_of_key` reads the header.
_bearer = HTTPBearer(auto_error=False, scheme_name="ApiKey", description="A key of `web.api_keys`.")


def reader(scope: Scope, role: Role) -> Callable[..., Session]:
    """A dependency that lets in people of at least this role, and programs whose key has the scope.

    A program's session has the role `viewer` and no cookie. Raises Problem: 401, 403, or 429 above the key's limit.
    """

    def check(request: Request, context: Context, _document: Annotated[object, Security(_bearer)]) -> Session:
        if "authorization" in request.headers:
            return _program(request, context, scope)
        session = signed_in(request, context)
        need(session, role)
        return session

    return check


def _program(request: Request, context: AppContext, scope: Scope) -> Session:
    name = name_of_key(request, {name: key.digest for name, key in context.api_keys.items()})
    key = context.api_keys[name]
    if scope.value not in key.scopes:
        detail = f"this needs a key with the scope {scope.value}; web.api_keys.{name} has {', '.join(key.scopes)}"
        raise Problem(HTTPStatus.FORBIDDEN, "scope", detail)
    limit = RateLimit("api-key", most=key.requests_per_minute, seconds=60)
    if wait := limit.take(context.redis, name):
        detail = f"more than {limit.most} requests a minute with this key; try again in {wait} seconds"
        raise Problem(HTTPStatus.TOO_MANY_REQUESTS, "too-many-requests", detail, headers={"Retry-After": str(wait)})
    return Session(PREFIX + name, Role.VIEWER, "api-key", expires_at=math.inf, csrf="", key="")


ItemReader = Annotated[Session, Depends(reader(Scope.ITEMS, Role.VIEWER))]
QueueReader = Annotated[Session, Depends(reader(Scope.STATISTICS, Role.VIEWER))]
StatisticsReader = Annotated[Session, Depends(reader(Scope.STATISTICS, Role.LEAD))]
VerdictReader = Annotated[Session, Depends(reader(Scope.VERDICTS, Role.LEAD))]
