"""Webhooks at the desk's API: what is not delivered, and sending it again."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from desk_clients import signed_in
from fastapi.testclient import TestClient
from stand_in_desk import StandInDesk

from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role
from worker.review.undelivered import Undelivered, UndeliveredMessage
from worker.settings import WebhookSettings

SHOP = WebhookSettings(url="https://shop.example.com:8443/hook?key=secret-in-url", secret="s" * 16)
LOST = "e" * 64


@pytest.fixture
def context(make_context: Callable[..., AppContext]) -> AppContext:
    made = make_context(webhooks={"shop": SHOP})
    at = datetime(2026, 12, 1, tzinfo=UTC)
    lost = UndeliveredMessage(
        id=LOST, records=(("d", 1, 7),), reason="the receiver answered 410", attempts=1, failed_at=at
    )
    Undelivered(made.redis, "shop").add(lost)
    return made


@pytest.fixture
def lead(context: AppContext) -> TestClient:
    return signed_in(context, "lea", Role.LEAD)


def test_a_lead_sees_each_webhook_without_its_secrets_and_what_is_not_delivered(lead: TestClient) -> None:
    answer = lead.get("/v1/webhooks")
    assert answer.json() == [
        {"name": "shop", "host": "shop.example.com", "sends": "decisions", "behind": None, "undelivered": 1}
    ]
    assert "secret" not in answer.text
    (lost,) = lead.get("/v1/webhooks/shop/undelivered").json()
    assert (lost["id"], lost["reason"], lost["source"]) == (LOST, "the receiver answered 410", "d/1@7")


def test_a_lead_asks_for_one_or_all_to_be_sent_again_and_the_audit_has_it(
    lead: TestClient, context: AppContext, desk: StandInDesk
) -> None:
    assert lead.post("/v1/webhooks/shop/redeliver", json={"ids": ["0" * 64]}).json() == {"queued": 0}
    assert lead.post("/v1/webhooks/shop/redeliver", json={"ids": [LOST]}).json() == {"queued": 1}
    assert [each.id for each in Undelivered(context.redis, "shop").wanted(10)] == [LOST]
    assert lead.post("/v1/webhooks/shop/redeliver", json={}).json() == {"queued": 1}
    assert any("webhook-redelivery" in str(entry) for entry in desk.recorded)


def test_an_unknown_webhook_is_named(lead: TestClient) -> None:
    answer = lead.get("/v1/webhooks/nobody/undelivered")
    assert (answer.status_code, answer.json()["detail"]) == (404, "review.webhooks has no 'nobody'")
