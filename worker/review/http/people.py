"""Local users, for admins: inviting, changing roles, removing."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path, Response
from pydantic import BaseModel

from worker.review.http.accounts import INVITATION_SECONDS, RESET_SECONDS, AccountsError
from worker.review.http.app_context import Admin, Context
from worker.review.http.problems import Problem
from worker.review.http.roles import Role
from worker.review.http.sign_in import Body, local_accounts

router = APIRouter(tags=["people"])

UserPath = Annotated[str, Path(max_length=64)]


class WithRole(Body):
    role: Role


class Person(BaseModel):
    name: str
    role: Role
    created_at: float


class InvitationLink(BaseModel):
    """A link that makes one user, or lets one choose another password. The token stands behind the `#`, so that it
    reaches no server's log."""

    link: str
    seconds: int


class OpenInvitation(BaseModel):
    """An invitation that was not used yet; `expires_at` is in seconds since the epoch."""

    id: str
    role: Role
    made_by: str
    expires_at: float


@router.get("/v1/users")
def people(_admin: Admin, context: Context) -> list[Person]:
    return [
        Person(name=user.name, role=user.role, created_at=user.created_at) for user in local_accounts(context).all()
    ]


@router.post("/v1/invitations", status_code=HTTPStatus.CREATED)
def invite(body: WithRole, admin: Admin, context: Context) -> InvitationLink:
    token = local_accounts(context).invite(body.role, admin.user)
    context.audit(admin.user, "user-invited", role=body.role.value)
    return InvitationLink(link=f"{context.origin}/#invitation={token}", seconds=INVITATION_SECONDS)


@router.get("/v1/invitations")
def invitations(_admin: Admin, context: Context) -> list[OpenInvitation]:
    """Those that were not used yet. They end after days, when revoked, or when their maker is no admin any more."""
    return [
        OpenInvitation(id=each.id, role=each.role, made_by=each.made_by, expires_at=each.expires_at)
        for each in local_accounts(context).invitations()
    ]


@router.delete("/v1/invitations/{invitation_id}", status_code=HTTPStatus.NO_CONTENT)
def revoke(invitation_id: Annotated[str, Path(max_length=64)], admin: Admin, context: Context) -> Response:
    if not local_accounts(context).revoke(invitation_id):
        raise Problem(HTTPStatus.NOT_FOUND, "no-such-invitation", "it was used, revoked or has ended")
    context.audit(admin.user, "invitation-revoked", invitation=invitation_id)
    return Response(status_code=HTTPStatus.NO_CONTENT)


@router.post("/v1/users/{name}/password-reset", status_code=HTTPStatus.CREATED)
def reset_password(name: UserPath, admin: Admin, context: Context) -> InvitationLink:
    """A link by which the user chooses another password. Until then the old one stays good."""
    token = local_accounts(context).reset(name, admin.user)
    if token is None:
        raise _unknown(name)
    context.audit(admin.user, "password-reset-made", user=name.strip().casefold())
    return InvitationLink(link=f"{context.origin}/#invitation={token}", seconds=RESET_SECONDS)


@router.patch("/v1/users/{name}")
def change_role(name: UserPath, body: WithRole, admin: Admin, context: Context) -> Person:
    """The user's sessions end, so that the new role counts at once; who may not decide any more keeps no items."""
    try:
        user = local_accounts(context).change_role(name, body.role)
    except AccountsError as error:
        raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    if user is None:
        raise _unknown(name)
    context.sessions.close_all(user.name)
    context.audit(admin.user, "role-changed", user=user.name, role=body.role.value)
    if not user.role.includes(Role.REVIEWER):
        context.unassign(user.name, admin.user)
    return Person(name=user.name, role=user.role, created_at=user.created_at)


@router.delete("/v1/users/{name}", status_code=HTTPStatus.NO_CONTENT)
def remove(name: UserPath, admin: Admin, context: Context) -> Response:
    """What was assigned to the user comes back to its queue."""
    try:
        removed = local_accounts(context).remove(name)
    except AccountsError as error:
        raise Problem(HTTPStatus.CONFLICT, "user-refused", str(error)) from None
    if not removed:
        raise _unknown(name)
    user = name.strip().casefold()
    context.sessions.close_all(user)
    context.audit(admin.user, "user-removed", user=user)
    context.unassign(user, admin.user)
    return Response(status_code=HTTPStatus.NO_CONTENT)


def _unknown(name: str) -> Problem:
    return Problem(HTTPStatus.NOT_FOUND, "no-such-user", f"there is no local user {name!r}")
