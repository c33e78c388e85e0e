"""Programs that read the desk's API with a key, on a stand-in desk."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from desk_clients import browser
from fastapi import FastAPI
from fastapi.testclient import TestClient

from schemas import HttpReference, Route, Scores, Source, Verdict
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.bearer_keys import digest_of
from worker.review.http.roles import Role
from worker.settings.doors import ApiKeySettings

KEY = "k" * 43
READS = {
    "items:read": ("/v1/items", "/v1/items/item-0"),
    "statistics:read": ("/v1/queues", "/v1/statistics", "/v1/intake"),
    "verdicts:read": ("/v1/verdicts",),
}
EVERY_READ = [path for paths in READS.values() for path in paths]

OpenWith = Callable[..., TestClient]


@pytest.fixture
def open_with(make_context: Callable[..., AppContext]) -> OpenWith:
    """A program with a key that has these scopes."""

    def open_client(*scopes: Any, requests_per_minute: int = 600) -> TestClient:
        settings = ApiKeySettings(digest=digest_of(KEY), scopes=scopes, requests_per_minute=requests_per_minute)
        client = browser(build_app(make_context(api_keys={"shop": settings})))
        client.headers["authorization"] = f"Bearer {KEY}"
        return client

    return open_client


@pytest.mark.parametrize("scope", READS)
def test_a_key_reads_what_its_scope_names_and_nothing_else(open_with: OpenWith, scope: str) -> None:
    client = open_with(scope)
    for path in EVERY_READ:
        response = client.get(path)
        if path in READS[scope]:
            assert response.status_code == 200, (path, response.text)
        else:
            assert (response.status_code, response.json()["type"]) == (403, "urn:sluice:problem:scope"), path
            assert f"web.api_keys.shop has {scope}" in response.json()["detail"]


def test_a_key_of_every_scope_changes_nothing(open_with: OpenWith) -> None:
    client = open_with(*READS)
    app = client.app
    assert isinstance(app, FastAPI)
    unsafe = [(m.upper(), path) for path, of in app.openapi()["paths"].items() for m in of if m != "get"]
    assert len(unsafe) > 15
    for method, path in unsafe:
        response = client.request(method, path.replace("{", "").replace("}", ""), json={})
        assert response.status_code in {401, 403, 422}, (method, path)


@pytest.mark.parametrize("header", [f"Bearer {KEY}x", "Bearer", "Bearer ", f"Basic {KEY}", KEY, ""])
def test_an_unknown_key_is_told_how_to_send_one_even_beside_a_session(
    open_with: OpenWith, sign_in: Callable[..., TestClient], header: str
) -> None:
    client = open_with("items:read")
    client.cookies.update(sign_in(Role.LEAD).cookies)
    response = client.get("/v1/items", headers={"authorization": header})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in response.json()["detail"]


def test_a_key_above_its_limit_is_told_when_to_come_back(open_with: OpenWith) -> None:
    client = open_with("items:read", requests_per_minute=3)
    answers = [client.get("/v1/items") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 60


def test_images_of_an_item_open_for_the_key_that_asked_for_it(open_with: OpenWith) -> None:
    client = open_with("items:read")
    link = client.get("/v1/items/item-0").json()["image"]["thumbnail"]
    assert client.get(link).json()["type"] == "urn:sluice:problem:reference-refused", "its file is in no root"
    del client.headers["authorization"]
    assert client.get(link).status_code == 401


def verdict(number: int, action: Any = "pass", tenant: str = "acme") -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant=tenant,
        occurred_at=None,
        judged_at=datetime(2026, 12, 1, tzinfo=UTC) + timedelta(minutes=number),
        image=HttpReference(url=f"https://user:pw@cdn.example.com/{number}.png?signature=abc"),
        content_hash=None,
        status="scored",
        scores=Scores(quality=4.0),
        route=Route(action=action, queue="quality" if action == "review" else None, rule="r"),
        model=f"sha256:{'0' * 64}",
        policy=f"sha256:{'0' * 64}",
        source=Source(topic="images", partition=0, offset=number),
    )


def test_verdicts_are_found_newest_first_by_what_is_asked_and_without_secrets(
    open_with: OpenWith, verdicts: list[Verdict]
) -> None:
    verdicts += [verdict(0), verdict(1, "review"), verdict(2, "review", "other"), verdict(3, "review"), verdict(4)]
    client = open_with("verdicts:read")

    every = client.get("/v1/verdicts").json()
    assert [each["verdict_id"] for each in every["verdicts"]] == ["v4", "v3", "v2", "v1", "v0"]
    assert (every["found"], every["looked_at"], every["oldest"]) == (5, 5, "2026-12-01T00:00:00Z")
    assert every["verdicts"][0]["schema"] == "sluice.verdict/1"
    assert not {"pw", "abc"} & set(every["verdicts"][0]["image"]["url"].replace("=", ":").replace("@", ":").split(":"))

    def found(**wanted: Any) -> list[str]:
        return [each["verdict_id"] for each in client.get("/v1/verdicts", params=wanted).json()["verdicts"]]

    assert found(action="review") == ["v3", "v2", "v1"]
    assert found(action="review", tenant="acme", limit=1) == ["v3"]
    assert found(event_id="e2") == ["v2"]
    assert found(since="2026-12-01T00:03:00Z") == ["v4", "v3"]
    assert found(until="2026-12-01T00:01:00Z") == ["v0"]
    assert client.get("/v1/verdicts", params={"limit": 1001}).status_code == 422
