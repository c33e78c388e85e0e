from datetime import UTC, datetime
from typing import Any

import pytest

from schemas import (
    DeadLetter,
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
