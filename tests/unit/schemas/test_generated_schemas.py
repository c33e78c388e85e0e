"""The generated JSON Schemas and AsyncAPI document."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import ValidationError

import schemas.generate as generate
from schemas import AuditEntry, AuditPlan, DeadLetter, DeadLetterAction, Decision, ImageEvent, ReviewItem, Verdict
from schemas.generate import CONTRACTS, FOLDER, asyncapi, contract_name, json_schema, main, stale

DIGEST = f"sha256:{'0' * 64}"
SOURCE = {"topic": "images.in", "partition": 0, "offset": 7, "index": 0}
TIME = "2026-01-01T00:00:00Z"
IMAGE = {"kind": "s3", "bucket": "images", "key": "a.png"}
EXAMPLES: dict[type, dict[str, Any]] = {
    ImageEvent: {
        "schema": "sluice.image-event/1",
        "id": "1",
        "occurred_at": TIME,
        "image": IMAGE,
        "attributes": {"a": [1]},
    },
    Verdict: {
        **{"verdict_id": "v", "event_id": "1", "tenant": "t", "occurred_at": TIME, "judged_at": TIME, "image": IMAGE},
        **{"content_hash": DIGEST, "status": "scored", "scores": {"quality": 3.5, "anchors": [0.2] * 5}},
        **{
            "route": {"action": "review", "queue": "q", "rule": "r"},
            "model": DIGEST,
            "policy": DIGEST,
            "source": SOURCE,
        },
    },
    ReviewItem: {
        **{"item_id": "i", "verdict_id": "v", "event_id": "1", "tenant": "t", "queue": "q", "priority": 5},
        **{"created_at": TIME, "image": {"kind": "inline", "bytes": "aGk="}, "content_hash": DIGEST, "scores": None},
        **{"failure": {"reason": "fetch_failed", "message": "m"}, "rule": "r", "features": {"coarse": "AAA="}},
        **{"model": DIGEST, "policy": DIGEST, "source": SOURCE},
    },
    Decision: {
        **{"decision_id": "d", "item_id": "i", "verdict_id": "v", "event_id": "1", "tenant": "t", "queue": "q"},
        **{"reviewer": "me", "outcome": "approve", "decided_at": TIME, "fencing_token": 1},
    },
    AuditEntry: {"at": TIME, "actor": "me", "action": "lease", "subjects": ["i"], "detail": {"queue": "q"}},
    AuditPlan: {
        **{"effective_from": TIME, "made_at": TIME, "uniform_share": 0.01, "budget_per_day": 400},
        "strata": [{"name": "below-2.5", "below": 2.5, "probability": 0.2}, {"name": "rest", "probability": 0.01}],
    },
    DeadLetterAction: {
        "letter_id": "0123456789abcdef0123",
        "event_id": "42",
        "action": "redrive",
        "at": "2026-01-02T03:04:06Z",
        "actor": "ana",
        "reason": "the bucket can be read again",
        "run": "r1",
    },
    DeadLetter: {
        **{
            "event_id": "1",
            "verdict_id": "v",
            "failed_at": TIME,
            "failure": {"reason": "malformed_event", "message": "m"},
        },
        **{"source": SOURCE, "headers": [["a", None], ["b", "AA=="]], "payload": "AAECAw==", "payload_size": 4},
    },
}


def test_the_generated_files_are_those_of_the_models() -> None:
    assert stale() == [], "run `python -m schemas.generate`"


def test_check_fails_for_a_stale_a_missing_and_an_orphaned_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(FOLDER / "json", tmp_path / "json")
    shutil.copy(FOLDER / "asyncapi.yaml", tmp_path)
    monkeypatch.setattr(generate, "FOLDER", tmp_path)
    assert main(["--check"]) == 0
    (tmp_path / "json" / "verdict.json").write_text("{}")
    (tmp_path / "json" / "decision.json").unlink()
    (tmp_path / "json" / "orphan.json").write_text("{}")
    assert main(["--check"]) == 1
    told = capsys.readouterr().err
    assert all(f"{name}.json: stale" in told for name in ("verdict", "decision", "orphan"))
    assert main([]) == 0
    assert main(["--check"]) == 0
    assert not (tmp_path / "json" / "orphan.json").exists()


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_schema_is_valid_and_takes_what_the_model_writes(contract: Any) -> None:
    schema = json.loads((FOLDER / "json" / f"{contract_name(contract)}.json").read_text())
    Draft202012Validator.check_schema(schema)
    message = contract.model_validate(EXAMPLES[contract])
    written = json.loads(message.model_dump_json())
    assert list(Draft202012Validator(schema).iter_errors(written)) == []
    assert contract.model_validate_json(json.dumps(written)) == message


@pytest.mark.parametrize("contract", CONTRACTS)
@pytest.mark.parametrize("change", [{"schema": "sluice.other/1"}, {"surprise": 1}, {"schema": ...}])
def test_a_schema_refuses_another_contract_and_unknown_keys(contract: Any, change: dict[str, Any]) -> None:
    written = json.loads(contract.model_validate(EXAMPLES[contract]).model_dump_json())
    changed = {name: value for name, value in {**written, **change}.items() if value is not ...}
    assert list(Draft202012Validator(json_schema(contract)).iter_errors(changed))


@pytest.mark.parametrize(
    ("change", "is_taken"),
    [
        ({}, True),
        ({"image": {"bucket": "images", "key": "a.png"}}, False),
        ({"image": {**IMAGE, "kind": "http"}}, False),
        ({"image": {**IMAGE, "path": "a.png"}}, False),
        ({"image": {**IMAGE, "bucket": "a/b"}}, False),
        ({"image": {"kind": "http", "url": "ftp://example.com/a.png"}}, False),
        ({"image": {"kind": "file", "path": "a\0"}}, False),
        ({"tenant": "a b"}, False),
        ({"priority": 101}, False),
        ({"sha256": "A" * 64}, False),
        ({"prompt": "x" * 20_001}, False),
        ({"attributes": {str(number): 1 for number in range(65)}}, False),
        ({"attributes": {"a": None}, "prompt": None, "generator": None}, True),
    ],
)
def test_the_schema_takes_the_events_that_the_worker_takes(change: dict[str, Any], is_taken: bool) -> None:
    event = {**EXAMPLES[ImageEvent], **change}
    assert Draft202012Validator(json_schema(ImageEvent)).is_valid(event) is is_taken
    try:
        ImageEvent.model_validate_json(json.dumps(event))
    except ValidationError:
        assert not is_taken
    else:
        assert is_taken


def test_messages_are_written_with_the_schema_key() -> None:
    for contract in CONTRACTS:
        written = contract.model_validate(EXAMPLES[contract]).model_dump_json()
        assert json.loads(written)["schema"] == f"sluice.{contract_name(contract)}/1"


def test_the_asyncapi_document_hangs_together() -> None:
    """Every reference leads somewhere: within the document, or to a generated schema beside it."""
    document = yaml.safe_load((FOLDER / "asyncapi.yaml").read_text())
    assert document == asyncapi()
    assert document["asyncapi"] == "3.0.0"

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [node["$ref"]] if "$ref" in node else [ref for value in node.values() for ref in references(value)]
        return [ref for value in node for ref in references(value)] if isinstance(node, list) else []

    for reference in references(document):
        if reference.startswith("./"):
            assert (FOLDER / reference).is_file()
            continue
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    actions = {name: operation["action"] for name, operation in document["operations"].items()}
    assert actions == {
        "receive_images": "receive",
        "send_verdicts": "send",
        "send_review": "send",
        "send_decisions": "send",
        "send_audit": "send",
        "send_audit_plans": "send",
        "send_dead": "send",
        "send_dead_actions": "send",
        "send_replays": "send",
        "send_retry_1": "send",
        "send_retry_2": "send",
        "send_retry_3": "send",
        "send_surplus": "send",
        "send_surplus_long": "send",
    }


def test_channels_have_the_addresses_that_are_the_settings_defaults() -> None:
    from worker.settings import TopicSettings

    addresses = {name: channel["address"] for name, channel in asyncapi()["channels"].items()}
    topics = TopicSettings().model_dump(exclude_none=True)
    del topics["review_snapshot"]  # the desk's own form, which is no contract
    assert addresses == topics
