"""The HTTP API on a stand-in desk, and clients that are signed in at it."""

import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from argon2 import PasswordHasher
from fastapi import FastAPI
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parent))

from desk_clients import ORIGIN, Clock, browser, signed_in
from stand_in_desk import StandInDesk, review_item

from schemas import Verdict
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.fetch.file import FileFetcher
from worker.policy.place import FilePlace
from worker.review.dead_letters import DeadLetters
from worker.review.http.accounts import Accounts
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext, ShownVerdicts
from worker.review.http.frame_sheets import SHEET_VIEWS, sheet_limits
from worker.review.http.heat_maps import ExplainEngine, HeatMaps
from worker.review.http.image_links import ImageLinks
from worker.review.http.past_verdicts import PastVerdicts
from worker.review.http.policies import Policies
from worker.review.http.renditions import Renderer
from worker.review.http.roles import Role
from worker.review.http.sessions import Sessions
from worker.review.intake_numbers import from_embedded
from worker.settings import ImageSettings, Settings
from worker.supervision import Supervisor


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(tmp_path: Path, clock: Clock) -> Iterator[Accounts]:
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    accounts = Accounts(tmp_path / "people.sqlite", clock, quick)
    yield accounts
    accounts.close()


@pytest.fixture
def desk() -> StandInDesk:
    return StandInDesk([review_item(f"item-{number}") for number in range(5)])


@pytest.fixture
def verdicts() -> list[Verdict]:
    return []


def no_explain_engine() -> ExplainEngine:
    raise FileNotFoundError("no model here")


@pytest.fixture
def make_context(
    desk: StandInDesk, accounts: Accounts, clock: Clock, tmp_path: Path, verdicts: list[Verdict]
) -> Callable[..., AppContext]:
    def make(**changes: Any) -> AppContext:
        client = fakeredis.FakeRedis()
        secret = b"s" * 32
        fetcher = FileFetcher((tmp_path,), max_bytes=10_000_000)
        renderer = Renderer(
            fetcher,
            decoder=ThreadDecoder(DecodeLimits(4_000_000), {}),
            frame_decoder=ThreadDecoder(sheet_limits(ImageSettings(max_pixels=4_000_000)), SHEET_VIEWS),
            cache_bytes=1_000_000,
            threads=2,
        )
        parts: dict[str, Any] = {
            "origin": ORIGIN,
            "desk": desk,
            "sessions": Sessions(client, secret, clock, lifetime_seconds=3600.0, idle_seconds=600.0),
            "redis": client,
            "accounts": accounts,
            "oidc": None,
            "renderer": renderer,
            "heat_maps": HeatMaps(renderer, no_explain_engine, lambda _: None, cache_bytes=1_000_000),
            "links": ImageLinks(secret, clock),
            "secret": secret,
            "api_keys": {},
            "webhooks": {},
            "policies": Policies(FilePlace(tmp_path / "policy.yaml", may_be_absent=True), {}, client, clock, "text"),
            "intake": from_embedded(Settings(), tmp_path),
            "past_verdicts": PastVerdicts(
                lambda _: (verdict.model_dump_json().encode() for verdict in verdicts), lambda: 0.0
            ),
            "shown_verdicts": ShownVerdicts(),
            "dead_letters": DeadLetters(Settings(), tmp_path, lambda: datetime.fromtimestamp(clock(), UTC)),
            "supervisor": Supervisor(),
            "labels": ("blurry",),
            "lease_seconds": 120.0,
            "undo_seconds": 10.0,
        }
        return AppContext(**(parts | changes))

    return make


@pytest.fixture
def context(make_context: Callable[..., AppContext]) -> AppContext:
    return make_context()


@pytest.fixture
def app(context: AppContext) -> FastAPI:
    return build_app(context)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    """Somebody who is not signed in."""
    return browser(app)


@pytest.fixture
def sign_in(app: FastAPI, context: AppContext) -> Callable[..., TestClient]:
    """A client that is signed in, with its CSRF token in its headers."""

    def open_session(role: Role = Role.REVIEWER, user: str = "ana") -> TestClient:
        return signed_in(context, user, role, app)

    return open_session
