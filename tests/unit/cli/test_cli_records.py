from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import (
    AuditEntry,
    DeadLetter,
    Decision,
    Failure,
    FailureReason,
    FileReference,
    HttpReference,
    ImageEvent,
    InlineReference,
    ReviewItem,
    Route,
    S3Reference,
    Scores,
    ShadowRoute,
    Source,
    Verdict,
)
from worker.cli.console import printable
from worker.cli.records import Topic, describe, image_name

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIGEST = "sha256:" + "ab" * 32
SOURCE = Source(topic="images.in", partition=2, offset=77)
FAILURE = Failure(reason=FailureReason.IMAGE_TOO_LARGE, message="too many pixels")
S3 = S3Reference(bucket="b", key="k/a.jpg")


def verdict(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "verdict_id": "v",
        "event_id": "e",
        "tenant": "acme",
        "occurred_at": NOW,
        "judged_at": NOW,
        "image": S3,
        "content_hash": DIGEST,
        "status": "scored",
        "scores": Scores(quality=2.345),
        "route": Route(action="review", queue="quality", labels=("poor",), rule="poor"),
        "model": DIGEST,
        "policy": DIGEST,
        "source": SOURCE,
    }
    return Verdict(**values | changes).model_dump_json(by_alias=True).encode()


def test_a_verdict_tells_time_quality_route_image_and_labels() -> None:
    assert describe(Topic.VERDICTS, verdict()).plain.split() == [
        "03:04:05", "2.35", "review", "quality", "s3://b/k/a.jpg", "poor",
    ]  # fmt: skip


def test_a_cached_verdict_says_so() -> None:
    assert describe(Topic.VERDICTS, verdict(cached=True)).plain.endswith("cached")


def test_a_verdict_of_an_overloaded_queue_says_which_overload_rule_applied() -> None:
    route = {"action": "reject", "rule": "poor", "overload": {"queue": "quality", "mode": "sample"}}
    assert describe(Topic.VERDICTS, verdict(route=route)).plain.endswith("sample: queue quality is overloaded")


def test_a_failed_verdict_tells_the_reason_and_the_event_where_there_is_no_image() -> None:
    line = describe(Topic.VERDICTS, verdict(status="failed", scores=None, failure=FAILURE, image=None)).plain

    assert line.split() == ["03:04:05", "-", "review", "quality", "e", "image_too_large"]


def test_a_review_item_tells_queue_and_priority() -> None:
    item = ReviewItem(
        item_id="i",
        verdict_id="v",
        event_id="e",
        tenant="t",
        queue="quality",
        priority=60,
        created_at=NOW,
        image=S3,
        content_hash=DIGEST,
        scores=Scores(quality=2),
        labels=("poor",),
        rule="poor",
        model=DIGEST,
        policy=DIGEST,
        source=SOURCE,
    )
    line = describe(Topic.REVIEW, item.model_dump_json(by_alias=True).encode()).plain

    assert line.split() == ["03:04:05", "2.00", "review", "quality", "s3://b/k/a.jpg", "priority", "60", "poor"]


def test_a_dead_letter_tells_reason_source_and_message() -> None:
    letter = DeadLetter(
        event_id="e", verdict_id="v", failed_at=NOW, failure=FAILURE, source=SOURCE, payload=b"x", payload_size=1
    )
    line = describe(Topic.DEAD, letter.model_dump_json(by_alias=True).encode()).plain

    assert line.split() == ["03:04:05", "image_too_large", "images.in/2@77", "too", "many", "pixels"]


def test_a_verdict_tells_what_a_shadow_policy_wanted_instead() -> None:
    wanted = Route(action="reject", rule="r")
    shadow = (ShadowRoute(name="strict", policy=DIGEST, route=wanted), ShadowRoute(name="same", policy=DIGEST))
    assert describe(Topic.VERDICTS, verdict(shadow=shadow)).plain.endswith("poor  shadow strict: reject")


def decision(**changes: Any) -> bytes:
    values: dict[str, Any] = {
        "decision_id": "d",
        "item_id": "i",
        "verdict_id": "v",
        "event_id": "e",
        "tenant": "t",
        "queue": "quality",
        "reviewer": "ana",
        "outcome": "reject",
        "decided_at": NOW,
        "fencing_token": 3,
    }
    return Decision(**values | changes).model_dump_json(by_alias=True).encode()


def test_a_decision_tells_who_said_what_and_what_came_of_it() -> None:
    line = describe(
        Topic.DECISIONS, decision(resolution="reject", labels=("anatomy",), note="six fingers\nreally")
    ).plain
    assert line.split() == [
        "03:04:05", "reject", "ana", "quality", "e", "resolved:", "reject", "anatomy", "six", "fingers…",
    ]  # fmt: skip
    assert describe(Topic.DECISIONS, decision(outcome="reopen", undoes="d0")).plain.endswith("e  undo")
    assert "to ben" in describe(Topic.DECISIONS, decision(outcome="assign", assignee="ben")).plain


def test_an_audit_entry_tells_who_did_what_and_leaves_long_texts_to_json() -> None:
    entry = AuditEntry(
        at=NOW,
        actor="lea",
        action="policy-saved",
        detail={"version": "3", "text": "schema: sluice.policy/1\nrules: []"},
    )
    line = describe(Topic.AUDIT, entry.model_dump_json(by_alias=True).encode()).plain
    assert line.split() == ["03:04:05", "policy-saved", "lea", "version=3", "text=schema:", "sluice.policy/1…"]


def test_an_audit_entry_on_many_items_names_a_few_and_counts_the_rest() -> None:
    entry = AuditEntry(at=NOW, actor="lea", action="split", subjects=tuple(f"item-{number}" for number in range(2000)))
    line = describe(Topic.AUDIT, entry.model_dump_json(by_alias=True).encode()).plain
    assert line.endswith("lea  item-0 item-1 item-2  and 1,997 more")


def test_text_from_outside_does_not_steer_the_terminal() -> None:
    assert "\x1b" not in describe(Topic.DECISIONS, decision(note="\x1b[2J")).plain


def test_an_event_tells_tenant_id_and_image() -> None:
    event = ImageEvent(id="e 1", occurred_at=NOW, image=FileReference(path="/a.jpg"), generator="sd")
    line = describe(Topic.IMAGES, event.model_dump_json(by_alias=True).encode()).plain

    assert line.split() == ["03:04:05", "default", "e", "1", "/a.jpg", "sd"]


@pytest.mark.parametrize("topic", list(Topic))
def test_what_does_not_belong_into_the_topic_is_refused(topic: Topic) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        describe(topic, b'{"schema": "other/1"}')


def test_every_kind_of_image_has_a_name() -> None:
    assert image_name(FileReference(path="/a")) == "/a"
    assert image_name(HttpReference(url="https://x/a")) == "https://x/a"
    assert image_name(InlineReference(bytes=b"x")) == "(inline)"
    assert image_name(None) == "(inline)"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    hostile = FileReference(path="/a\x1b[2J\r\n\u202egpj.exe")
    line = describe(Topic.VERDICTS, verdict(image=hostile)).plain

    assert r"/a\x1b[2J\r\n\u202egpj.exe" in line


@pytest.mark.parametrize("text", ["plain", "mit Umlaut äöü", "日本語", "a b"])
def test_ordinary_text_is_shown_as_it_is(text: str) -> None:
    assert printable(text) == text
