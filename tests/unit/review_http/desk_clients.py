"""What tests of the desk's HTTP API import: its address, a clock to move, and somebody who is not signed in."""

from fastapi import FastAPI
from fastapi.testclient import TestClient

from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role

ORIGIN = "http://127.0.0.1:8420"
PASSWORD = "correct horse battery"


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def signed_in(context: AppContext, user: str, role: Role, app: FastAPI | None = None) -> TestClient:
    """A client of the context's desk, with its CSRF token in its headers. `app`: one that is there already."""
    client = browser(app or build_app(context))
    token, session = context.sessions.open(user, role, "local")
    client.cookies.set(context.session_cookie, token, domain="127.0.0.1")
    client.headers["x-csrf-token"] = session.csrf
    return client


def browser(app: FastAPI) -> TestClient:
    return TestClient(app, base_url=ORIGIN, follow_redirects=False, raise_server_exceptions=False)
