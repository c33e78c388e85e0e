"""The API as programs see it, on a stand-in desk."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from desk_clients import PASSWORD, browser, signed_in
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from stand_in_desk import StandInDesk, new_id

from schemas import Route, Scores, Source, Verdict
from worker.policy.loading import DEFAULT
from worker.review.http.app import build_app
from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role
from worker.supervision import RestartPolicy, Supervisor

SignIn = Callable[..., TestClient]

OPEN_PATHS = {
    "/v1/sign-in",
    "/v1/sign-in/oidc",
    "/v1/sign-in/oidc/callback",
    "/v1/invitations/check",
    "/v1/invitations/accept",
    "/healthz",
}


def leased(client: TestClient, count: int = 1) -> list[dict[str, object]]:
    response = client.post("/v1/queues/quality/leases", json={"count": count})
    assert response.status_code == 200, response.text
    leases: list[dict[str, object]] = response.json()
    return leases


def choice(lease: dict[str, object], **changes: object) -> dict[str, object]:
    return {
        "decision_id": new_id(),
        "item_id": lease["item_id"],
        "token": lease["token"],
        "outcome": "approve",
    } | changes


def every_route(app: FastAPI) -> list[tuple[str, str]]:
    paths = app.openapi()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_every_route_but_the_door_itself_answers_401_without_sign_in(app: FastAPI, client: TestClient) -> None:
    routes = [(method, path) for method, path in every_route(app) if path not in OPEN_PATHS]
    assert len(routes) > 20
    for method, path in routes:
        response = client.request(method, path.replace("{", "").replace("}", ""), json={})
        assert (response.status_code, response.headers["content-type"]) == (401, "application/problem+json"), path
        assert response.json()["type"] == "urn:sluice:problem:not-signed-in"


def test_every_unsafe_route_refuses_a_request_without_the_csrf_token(app: FastAPI, sign_in: SignIn) -> None:
    client = sign_in(Role.ADMIN)
    del client.headers["x-csrf-token"]
    unsafe = [(method, path) for method, path in every_route(app) if method != "GET"]
    assert len(unsafe) > 15
    for method, path in unsafe:
        response = client.request(method, path.replace("{", "").replace("}", ""), json={})
        # Bodies are looked at side by side with the token; neither way does anything happen.
        assert response.status_code in {403, 422}, (method, path)
    assert client.post("/v1/decisions", json={}).status_code == 403


def test_a_request_from_another_site_is_refused_even_with_a_token(sign_in: SignIn) -> None:
    response = sign_in().post("/v1/queues/quality/leases", json={}, headers={"origin": "http://evil.example"})
    assert (response.status_code, response.json()["type"]) == (403, "urn:sluice:problem:foreign-origin")


@pytest.mark.parametrize(
    ("method", "path", "needed"),
    [
        ("POST", "/v1/queues/quality/leases", Role.REVIEWER),
        ("POST", "/v1/decisions", Role.REVIEWER),
        ("POST", "/v1/decisions/bulk", Role.REVIEWER),
        ("POST", "/v1/leases/release", Role.REVIEWER),
        ("POST", "/v1/items/item-0/take", Role.LEAD),
        ("POST", "/v1/items/item-0/assign", Role.LEAD),
        ("POST", "/v1/items/item-0/reopen", Role.LEAD),
        ("POST", "/v1/items/item-0/gold", Role.LEAD),
        ("GET", "/v1/statistics", Role.LEAD),
        ("GET", "/v1/policy", Role.LEAD),
        ("PUT", "/v1/policy", Role.LEAD),
        ("GET", "/v1/policy/shadows", Role.LEAD),
        ("POST", "/v1/policy/replay", Role.LEAD),
        ("GET", "/v1/users", Role.ADMIN),
        ("POST", "/v1/invitations", Role.ADMIN),
        ("PATCH", "/v1/users/ana", Role.ADMIN),
        ("DELETE", "/v1/users/ana", Role.ADMIN),
    ],
)
def test_a_role_is_needed_and_suffices(sign_in: SignIn, method: str, path: str, needed: Role) -> None:
    for role in Role:
        status = sign_in(role).request(method, path, json={}).status_code
        assert (status == 403) is not role.includes(needed), (role, status)


def test_a_reviewer_leases_and_decides_and_sending_again_changes_nothing(desk: StandInDesk, sign_in: SignIn) -> None:
    client = sign_in()
    (lease,) = leased(client)
    body = choice(lease, outcome="reject", labels=["blurry"], note="soft", seconds_spent=2.5)
    first, second = client.post("/v1/decisions", json=body), client.post("/v1/decisions", json=body)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert first.json()["resolution"] == "reject"
    (decision,) = desk.decisions.values()
    assert (decision.reviewer, decision.labels, decision.note) == ("ana", ("blurry",), "soft")


def test_an_old_token_is_a_conflict_that_says_why(sign_in: SignIn) -> None:
    client = sign_in()
    (lease,) = leased(client)
    response = client.post("/v1/decisions", json=choice(lease, token=999))
    assert (response.status_code, response.json()["type"]) == (409, "urn:sluice:problem:lease-lost")
    assert "somebody else" in response.json()["detail"]


def test_a_request_whose_answer_was_not_heard_is_withdrawn_by_who_asked(desk: StandInDesk, sign_in: SignIn) -> None:
    answer = sign_in().post("/v1/leases/release", json={"requests": ["first", "second"]})
    assert answer.status_code == 204
    assert desk.calls == [("withdraw", "first", "ana"), ("withdraw", "second", "ana")]


def test_bulk_tells_the_outcome_of_each(sign_in: SignIn) -> None:
    client = sign_in()
    first, second = leased(client, 2)
    answers = client.post("/v1/decisions/bulk", json={"decisions": [choice(first), choice(second, token=999)]}).json()
    assert [answer["item_id"] for answer in answers] == [first["item_id"], second["item_id"]]
    assert answers[0]["decided"]["resolution"] == "approve"
    assert answers[1]["refused"]["kind"] == "lease-lost"


def test_undo_gives_the_item_back_to_who_decided_and_to_nobody_else(sign_in: SignIn) -> None:
    ana, ben = sign_in(user="ana"), sign_in(user="ben")
    (lease,) = leased(ana)
    body = choice(lease)
    ana.post("/v1/decisions", json=body)
    assert ben.post(f"/v1/decisions/{body['decision_id']}/undo").status_code in {404, 409}
    (lease,) = leased(ana)
    body = choice(lease)
    ana.post("/v1/decisions", json=body)
    again = ana.post(f"/v1/decisions/{body['decision_id']}/undo").json()
    assert again["item_id"] == lease["item_id"]
    assert again["token"] > lease["token"]


def test_a_lost_lease_does_not_spoil_the_heartbeat_of_the_others(sign_in: SignIn) -> None:
    client = sign_in()
    (lease,) = leased(client)
    held = [{"item_id": lease["item_id"], "token": lease["token"]}, {"item_id": "item-4", "token": 7}]
    beats = client.post("/v1/leases/heartbeat", json={"leases": held}).json()
    assert beats[0]["expires_at"] is not None
    assert beats[1]["expires_at"] is None


def test_setting_aside_without_a_lease_is_for_leads(desk: StandInDesk, sign_in: SignIn) -> None:
    assert sign_in().post("/v1/items/item-0/escalate", json={}).status_code == 403
    assert sign_in(Role.LEAD, "lea").post("/v1/items/item-0/escalate", json={"note": "see"}).status_code == 204
    assert ("escalate", "item-0", "lea", None, "see") in desk.calls


def test_a_reviewer_sees_no_votes_and_cannot_search_for_them(sign_in: SignIn) -> None:
    lead, reviewer = sign_in(Role.LEAD, "lea"), sign_in()
    (lease,) = leased(lead)
    lead.post("/v1/decisions", json=choice(lease))
    path = f"/v1/items/{lease['item_id']}"
    assert [act["by"] for act in lead.get(path).json()["history"]] == ["lea"]
    assert reviewer.get(path).json()["history"] == []
    assert all(item["history"] == [] for item in reviewer.get("/v1/items").json()["items"])
    assert reviewer.get("/v1/items", params={"status": "gold"}).status_code == 403
    assert lead.get("/v1/items", params={"status": "gold"}).status_code == 200


def test_what_is_wrong_with_a_body_is_named_without_repeating_it(sign_in: SignIn) -> None:
    response = sign_in().post("/v1/decisions", json={"decision_id": "hunter2-secret", "outcome": "burn"})
    assert response.status_code == 422
    assert {"where": "body.item_id", "what": "Field required"} in response.json()["faults"]
    assert "hunter2" not in response.text


def test_an_unknown_item_is_404(sign_in: SignIn) -> None:
    response = sign_in().get("/v1/items/nothing")
    assert (response.status_code, response.json()["type"]) == (404, "urn:sluice:problem:unknown-item")


@pytest.mark.parametrize(
    ("provider", "name", "status", "assigned"),
    [
        (False, " Ben ", 204, "ben"),
        (False, "bne", 404, None),
        (False, "vera", 409, None),
        (True, "ben", 204, "ben"),
        (True, "bob@example.com", 204, "oidc:bob@example.com"),
        (True, "oidc:bob@example.com", 204, "oidc:bob@example.com"),
    ],
)
def test_an_item_is_assigned_to_somebody_who_can_decide_it(
    make_context: Callable[..., AppContext],
    desk: StandInDesk,
    provider: bool,
    name: str,
    status: int,
    assigned: str | None,
) -> None:
    context = make_context(oidc=object() if provider else None)
    assert context.accounts is not None
    for user, role in (("Ben", Role.REVIEWER), ("vera", Role.VIEWER)):
        context.accounts.accept(context.accounts.invite(role, "test"), user, PASSWORD)
    client = signed_in(context, "lea", Role.LEAD)
    assert client.post("/v1/items/item-0/assign", json={"assignee": name}).status_code == status
    assert desk.calls == ([("assign", "item-0", "lea", assigned)] if assigned else [])


def test_statistics_carry_intervals_and_agreement(sign_in: SignIn) -> None:
    data = sign_in(Role.LEAD).get("/v1/statistics").json()
    assert data["hours"][0] == {
        "hour": "2026-11-24T12:00:00Z", "arrived": 12, "approved": 5, "rejected": 3, "held": 7, "flips": 4,
    }  # fmt: skip
    assert data["agreement"] == [{"first": "ana", "second": "ben", "kappa": 0.7}]
    (misses,) = data["audit_misses"]
    assert {name: misses[name] for name in ("tenant", "drawn", "audited", "missed", "share", "low", "high")} == {
        **{"tenant": "acme", "drawn": 44, "audited": 40, "missed": 1},
        **{"share": 0.025, "low": 0.004, "high": 0.13},
    }


def a_verdict(number: int, quality: float, action: str, queue: str | None) -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant="acme",
        occurred_at=datetime(2026, 1, 1, tzinfo=UTC),
        judged_at=datetime(2026, 1, 1, tzinfo=UTC),
        content_hash=None,
        status="scored",
        scores=Scores(quality=quality),
        route=Route(action=action, queue=queue, rule="default"),  # type: ignore[arg-type]
        model="sha256:" + "a" * 64,
        policy="sha256:" + "b" * 64,
        source=Source(topic="images.in", partition=0, offset=number),
    )


def test_a_changed_policy_is_replayed_over_past_verdicts(sign_in: SignIn, verdicts: list[Verdict]) -> None:
    verdicts += [a_verdict(1, 2.8, "pass", None), a_verdict(2, 4.0, "pass", None)]
    lead = sign_in(Role.LEAD)
    policy = lead.get("/v1/policy").json()
    assert (policy["text"], policy["shipped"], policy["verdicts"]) == (DEFAULT.read_text(), True, 2)
    stricter = policy["text"].replace("borderline: 2.6", "borderline: 3.0")
    result = lead.post("/v1/policy/replay", json={"text": stricter}).json()
    assert result["before"] == {"pass": 2}
    assert result["after"] == {"pass": 1, "review:quality": 1}
    (flip,) = result["flips"]
    assert (flip["before"], flip["after"], flip["count"]) == ("pass", "review:quality", 1)
    assert flip["examples"][0]["event_id"] == "e1"


def test_a_faulty_policy_is_refused_with_its_line(sign_in: SignIn) -> None:
    response = sign_in(Role.LEAD).post("/v1/policy/replay", json={"text": "schema: sluice.policy/1\nversion: 3\n"})
    assert (response.status_code, response.json()["type"]) == (422, "urn:sluice:problem:policy-refused")
    assert response.json()["faults"][0]["what"].startswith("policy.yaml:")
    assert "/tmp" not in response.text


def test_every_route_is_described_in_openapi(app: FastAPI) -> None:
    described = {path for _, path in every_route(app)}
    served = {route.path for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema}
    assert served <= described


def test_a_loop_of_the_desk_that_does_not_come_back_fails_the_health_check_with_its_name(
    make_context: Callable[..., AppContext],
) -> None:
    policy = RestartPolicy(first_pause=0.001, longest_pause=0.001, unhealthy_after=0.0)
    supervisor = Supervisor(policy=policy)
    client = browser(build_app(make_context(supervisor=supervisor)))
    assert client.get("/healthz").json() == {"healthy": True, "reasons": []}
    loop = supervisor.start("projector", lambda _: None)
    try:
        deadline = time.monotonic() + 30
        while (answer := client.get("/healthz")).status_code == 200:
            assert time.monotonic() < deadline
        assert answer.status_code == 503
        assert "projector" in answer.json()["reasons"][0]
    finally:
        supervisor.stop(loop, 30)
