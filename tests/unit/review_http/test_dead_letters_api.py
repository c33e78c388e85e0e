"""Dead letters at the desk's context: who may act, what is found, what is written and audited."""

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

sys.path.insert(0, str(Path(__file__).parents[1] / "dead_letters"))

from letter_bench import NOW, LetterBench, event

from schemas import FailureReason
from worker.intake.kafka_reading import no_topic
from worker.review.http.app_context import AppContext
from worker.review.http.roles import Role
from worker.settings import KafkaSettings

SignIn = Callable[..., TestClient]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[LetterBench]:
    bench = LetterBench(tmp_path)
    with bench.stack:
        bench.letter(event("e1", "acme"), failed_at=NOW - timedelta(hours=2))
        bench.letter(event("e2", "umbrella"), reason=FailureReason.ACCESS_DENIED)
        yield bench


@pytest.mark.parametrize("role", [Role.VIEWER, Role.REVIEWER])
def test_only_leads_see_and_act_on_dead_letters(bench: LetterBench, sign_in: SignIn, role: Role) -> None:
    client = sign_in(role)
    chosen = {"letter_ids": ["0" * 20], "reason": "x"}

    assert client.get("/v1/dead-letters").status_code == 403
    assert client.get("/v1/dead-letters/ids").status_code == 403
    assert client.get(f"/v1/dead-letters/{'0' * 20}").status_code == 403
    assert client.post("/v1/dead-letters/redrive", json=chosen).status_code == 403
    assert client.post("/v1/dead-letters/drop", json=chosen).status_code == 403


def test_letters_are_found_newest_first_with_counts(bench: LetterBench, sign_in: SignIn) -> None:
    client = sign_in(Role.LEAD, "lea")
    found = client.get("/v1/dead-letters", params={"state": "open"}).json()

    assert [letter["event_id"] for letter in found["letters"]] == ["e2", "e1"]
    assert (found["count"], found["is_complete"]) == (2, True)
    assert found["reasons"] == {"access_denied": 1, "image_not_found": 1}
    assert found["tenants"] == ["acme", "umbrella"]
    second = client.get("/v1/dead-letters", params={"start": 1, "limit": 1}).json()
    assert [letter["event_id"] for letter in second["letters"]] == ["e1"]
    params = {"tenant": ["acme", "umbrella"], "until": (NOW - timedelta(hours=1)).isoformat()}
    assert [each["event_id"] for each in client.get("/v1/dead-letters", params=params).json()["letters"]] == ["e1"]
    ids = client.get("/v1/dead-letters/ids", params={"reason": "access_denied"}).json()
    assert ids == [found["letters"][0]["letter_id"]]
    assert client.get("/v1/dead-letters", params={"reason": "bad luck"}).status_code == 422


def test_a_letter_is_shown_without_what_may_be_secret(bench: LetterBench, sign_in: SignIn) -> None:
    value = (
        b'{"schema":"sluice.image-event/1","url":"https://cdn.example/a.png?X-Amz-Signature=abcdef","bucket":"b",'
        b'"other":"https:\\/\\/me:abcdef@cdn.example\\/b.png#abcdef","api_key" : "abcdef","note":"Bearer abcdef"}'
    )
    bench.letter(value, reason=FailureReason.MALFORMED_EVENT, headers=(("authorization", b"Bearer abcdef"),))
    client = sign_in(Role.LEAD)
    (letter_id,) = client.get("/v1/dead-letters/ids", params={"reason": "malformed_event"}).json()
    answer = client.get(f"/v1/dead-letters/{letter_id}")

    assert answer.json()["failed_at"].startswith("2026-11-30")
    assert "cdn.example/a.png" in answer.json()["text"]
    assert '"bucket":"b"' in answer.json()["text"]
    assert "abcdef" not in answer.text
    assert client.get(f"/v1/dead-letters/{'0' * 20}").status_code == 404


def test_redriving_and_dropping_is_done_once_and_audited_with_the_person(bench: LetterBench, sign_in: SignIn) -> None:
    client = sign_in(Role.LEAD, "lea")
    (first,) = client.get("/v1/dead-letters/ids", params={"tenant": "acme"}).json()
    (second,) = client.get("/v1/dead-letters/ids", params={"tenant": "umbrella"}).json()

    redriven = client.post("/v1/dead-letters/redrive", json={"letter_ids": [first, "f" * 20]}).json()
    again = client.post("/v1/dead-letters/redrive", json={"letter_ids": [first]}).json()
    dropped = client.post("/v1/dead-letters/drop", json={"letter_ids": [second], "reason": "left us"}).json()

    assert redriven["done"] == [first]
    assert list(redriven["refused"]) == ["f" * 20]
    assert again == {"done": [], "already": {first: "redriven"}, "refused": {}}
    assert dropped["done"] == [second]
    assert bench.submitted == ["e1"]
    assert {(each.actor, each.action, each.subjects) for each in bench.audit} == {
        ("lea", "dead-letter-redrive", (first,)),
        ("lea", "dead-letter-drop", (second,)),
    }
    shown = client.get(f"/v1/dead-letters/{second}").json()
    assert (shown["state"], shown["action"]["reason"], shown["action"]["actor"]) == ("dropped", "left us", "lea")


@pytest.mark.parametrize(
    "body",
    [
        {"letter_ids": []},
        {"letter_ids": ["not an id"]},
        {"letter_ids": ["0" * 20] * 101},
        {"letter_ids": ["0" * 20], "reason": " "},
        {"letter_ids": ["0" * 20]},
    ],
)
def test_a_drop_without_a_reason_or_with_odd_ids_is_refused(
    bench: LetterBench, sign_in: SignIn, body: dict[str, object]
) -> None:
    answer = sign_in(Role.LEAD).post("/v1/dead-letters/drop", json=body)
    assert answer.status_code == 422
    assert bench.done == []


def test_a_topic_that_is_missing_is_named_with_what_to_do(
    context: AppContext, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def find(*_: object, **__: object) -> None:
        raise no_topic("images.dead.actions", KafkaSettings())

    monkeypatch.setattr(context.dead_letters, "find", find)
    answer = sign_in(Role.LEAD).get("/v1/dead-letters")

    assert answer.status_code == 409
    assert "images.dead.actions does not exist" in answer.json()["detail"]
    assert "sluice topics create" in answer.json()["detail"]
