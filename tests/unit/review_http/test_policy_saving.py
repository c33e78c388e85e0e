"""Saving a policy at the desk: what is saved, who may, what is told to whom; and what shadows would have done."""

import io
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fakeredis
import pytest
from fastapi.testclient import TestClient
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from desk_clients import Clock, signed_in
from stand_in_desk import StandInDesk

from schemas import FileReference, Route, Scores, ShadowRoute, Source, Verdict
from worker.intake.log import LogError
from worker.policy.place import FilePlace, ShippedPlace
from worker.review.http.app_context import AppContext
from worker.review.http.policies import Policies
from worker.review.http.roles import Role

SignIn = Callable[..., TestClient]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
OLD, NEW = "sha256:" + "1" * 64, "sha256:" + "2" * 64


def changed(policy: dict[str, Any], version: str = "mine") -> dict[str, str]:
    text = policy["text"].replace('version: "2026-01"', f'version: "{version}"')
    assert text != policy["text"]
    return {"text": text, "replaces": policy["text_digest"]}


def kind(response: Any) -> tuple[int, str]:
    return response.status_code, response.json()["type"].rpartition(":")[2]


def test_a_saved_policy_is_where_workers_read_it_and_in_the_audit_topic(
    sign_in: SignIn, context: AppContext, desk: StandInDesk
) -> None:
    lead = sign_in(Role.LEAD, "lea")
    policy = lead.get("/v1/policy").json()
    assert policy["shipped"] is True
    saved = lead.put("/v1/policy", json=changed(policy))
    assert saved.status_code == 200
    assert Path(context.policies.live.address).read_text() == changed(policy)["text"]
    after = lead.get("/v1/policy").json()
    assert (after["version"], after["digest"], after["shipped"]) == ("mine", saved.json()["digest"], False)
    assert (after["saved_by"], after["place"]) == ("lea", context.policies.live.address)
    ((actor, action, detail),) = desk.recorded
    assert (actor, action, detail["version"]) == ("lea", "policy-saved", "mine")
    assert (detail["replaces"], detail["text"]) == (policy["text_digest"], changed(policy)["text"])


def test_who_saves_over_another_is_told_by_whom_and_changes_nothing(sign_in: SignIn, context: AppContext) -> None:
    ben, lea = sign_in(Role.LEAD, "ben"), sign_in(Role.LEAD, "lea")
    policy = lea.get("/v1/policy").json()
    assert ben.put("/v1/policy", json=changed(policy, "ben's")).status_code == 200
    answer = lea.put("/v1/policy", json=changed(policy, "lea's"))
    assert kind(answer) == (409, "policy-changed")
    assert answer.json()["detail"].startswith("ben saved another policy since you loaded yours")
    assert answer.json()["saved_by"] == "ben"
    assert "ben's" in Path(context.policies.live.address).read_text()


def test_a_change_made_outside_of_the_desk_is_not_overwritten_either(sign_in: SignIn, context: AppContext) -> None:
    lead = sign_in(Role.LEAD)
    policy = lead.get("/v1/policy").json()
    Path(context.policies.live.address).write_text(policy["text"] + "# by hand\n")
    answer = lead.put("/v1/policy", json=changed(policy))
    assert kind(answer) == (409, "policy-changed")
    assert answer.json()["detail"].startswith("another policy was put there")


def test_saving_the_same_again_is_safe_and_recorded_once(sign_in: SignIn, desk: StandInDesk) -> None:
    lead = sign_in(Role.LEAD)
    body = changed(lead.get("/v1/policy").json())
    first, again = (lead.put("/v1/policy", json=body) for _ in range(2))
    assert (first.status_code, first.json()) == (again.status_code, again.json())
    assert [action for _, action, _ in desk.recorded] == ["policy-saved"]


def test_a_faulty_text_is_refused_with_its_line_and_not_saved(
    sign_in: SignIn, context: AppContext, desk: StandInDesk
) -> None:
    lead = sign_in(Role.LEAD)
    policy = lead.get("/v1/policy").json()
    body = changed(policy) | {"text": policy["text"].replace("scores.quality", "scores.qualty")}
    answer = lead.put("/v1/policy", json=body)
    assert kind(answer) == (422, "policy-refused")
    assert "did you mean" in answer.json()["faults"][0]["what"]
    assert not Path(context.policies.live.address).exists()
    assert desk.recorded == []


def test_a_policy_that_could_not_be_traced_is_not_saved(
    sign_in: SignIn, context: AppContext, desk: StandInDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise LogError("no broker")

    lead = sign_in(Role.LEAD)
    policy = lead.get("/v1/policy").json()
    monkeypatch.setattr(desk, "record", away)
    assert kind(lead.put("/v1/policy", json=changed(policy))) == (503, "server-away")
    assert not Path(context.policies.live.address).exists()


def test_without_a_place_saving_is_refused_with_what_to_set(
    make_context: Callable[..., AppContext], desk: StandInDesk, clock: Clock
) -> None:
    context = make_context(policies=Policies(ShippedPlace(), {}, fakeredis.FakeRedis(), clock, "text"))
    client = signed_in(context, "lea", Role.LEAD)
    policy = client.get("/v1/policy").json()
    assert (policy["place"], policy["shipped"]) == (None, True)
    answer = client.put("/v1/policy", json=changed(policy))
    assert kind(answer) == (409, "policy-read-only")
    assert "set `policy`" in answer.json()["detail"]
    assert desk.recorded == []


def test_a_text_at_the_place_that_is_no_policy_is_shown_with_its_faults(sign_in: SignIn, context: AppContext) -> None:
    Path(context.policies.live.address).write_text("schema: sluice.policy/1\nversion: '1'\nrules: []\n")
    policy = sign_in(Role.LEAD).get("/v1/policy").json()
    assert (policy["version"], policy["digest"]) == (None, None)
    assert ":3: rules" in policy["faults"][0]


def verdict(number: int, quality: float, policy: str, wanted: Route | None) -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant="acme",
        occurred_at=NOW,
        judged_at=NOW + timedelta(seconds=number),
        image=FileReference(path="/nowhere.jpg"),
        content_hash=None,
        status="scored",
        scores=Scores(quality=quality),
        route=Route(action="pass", rule="default"),
        shadow=(ShadowRoute(name="strict", policy=policy, route=wanted),),
        model=OLD,
        policy=OLD,
        source=Source(topic="images.in", partition=0, offset=number),
    )


REVIEW = Route(action="review", queue="quality", rule="poor")


def test_shadows_tell_what_they_would_have_done_since_they_were_last_changed(
    sign_in: SignIn, verdicts: list[Verdict], context: AppContext, tmp_path: Path
) -> None:
    verdicts += [verdict(0, 1.0, OLD, REVIEW), verdict(1, 2.0, NEW, REVIEW), verdict(2, 4.0, NEW, None)]
    verdicts.append(verdict(3, 4.0, NEW, Route(action="pass", rule="default", priority=3)))
    (tmp_path / "strict.yaml").write_text("version: 3")
    context.policies.shadows = {"strict": FilePlace(tmp_path / "strict.yaml")}
    (shadow,) = sign_in(Role.LEAD).get("/v1/policy/shadows").json()
    assert (shadow["name"], shadow["digest"], shadow["total"], shadow["changed"]) == ("strict", NEW, 3, 1)
    assert (shadow["before"], shadow["after"]) == ({"pass": 3}, {"review:quality": 1, "pass": 2})
    (flip,) = shadow["flips"]
    assert (flip["before"], flip["after"], flip["count"]) == ("pass", "review:quality", 1)
    assert flip["examples"][0]["event_id"] == "e1"
    assert flip["examples"][0]["image"]["thumbnail"].startswith("/v1/images/")
    assert shadow["text"] == "version: 3"
    assert "strict.yaml:1" in shadow["trouble"]


def test_a_shadow_that_only_verdicts_know_is_shown_too(sign_in: SignIn, verdicts: list[Verdict]) -> None:
    verdicts.append(verdict(1, 2.0, NEW, REVIEW))
    (shadow,) = sign_in(Role.LEAD).get("/v1/policy/shadows").json()
    assert (shadow["name"], shadow["text"], shadow["total"]) == ("strict", None, 1)
    assert "name no shadow policy" in shadow["trouble"]


def test_an_animation_among_the_examples_is_shown_by_the_frame_that_decided(
    sign_in: SignIn, verdicts: list[Verdict], tmp_path: Path
) -> None:
    colours = [Image.new("RGB", (40, 30), colour) for colour in ("white", "black", "white")]
    colours[0].save(tmp_path / "moving.webp", save_all=True, append_images=colours[1:], lossless=True)
    changes = {
        "image": FileReference(path=str(tmp_path / "moving.webp")),
        "scores": Scores(quality=2.0, frames=3, worst_frame=1),
    }
    verdicts.append(verdict(1, 2.0, NEW, REVIEW).model_copy(update=changes))
    client = sign_in(Role.LEAD)
    (shadow,) = client.get("/v1/policy/shadows").json()
    shown = client.get(shadow["flips"][0]["examples"][0]["image"]["thumbnail"])
    assert shown.status_code == 200
    with Image.open(io.BytesIO(shown.content)) as picture:
        assert picture.convert("L").getpixel((5, 5)) < 20, "the black one"
