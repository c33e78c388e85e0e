"""Outputs that a topic does not take are cut, and say so."""

import base64
import json
from typing import Any

import pytest

from schemas import DeadLetter, ReviewItem
from worker.intake.log import Output
from worker.intake.shortening import shorten

SOURCE = {"topic": "images", "partition": 3, "offset": 17, "index": 0}
LETTER = {
    "schema": "sluice.dead-letter/1",
    "event_id": "e",
    "verdict_id": "v",
    "failed_at": "2026-11-30T12:00:00Z",
    "failure": {"reason": "undecodable_image", "message": "no PNG", "attempts": 1},
    "source": SOURCE,
    "key": base64.b64encode(b"key").decode(),
    "headers": [["name", base64.b64encode(b"x" * 300).decode()]],
    "payload": base64.b64encode(bytes(range(256)) * 400).decode(),
    "payload_size": 102_400,
}
ITEM = {
    "schema": "sluice.review-item/1",
    "item_id": "v",
    "verdict_id": "v",
    "event_id": "e",
    "tenant": "default",
    "queue": "low",
    "priority": 50,
    "created_at": "2026-11-30T12:00:00Z",
    "image": {"kind": "inline", "bytes": base64.b64encode(b"x" * 50_000).decode()},
    "content_hash": "sha256:" + "0" * 64,
    "prompt": "a cat " * 2000,
    "generator": None,
    "scores": None,
    "failure": None,
    "labels": [],
    "rule": "r",
    "features": {"coarse": base64.b64encode(b"f" * 1024).decode()},
    "model": "sha256:" + "1" * 64,
    "policy": "sha256:" + "2" * 64,
    "source": SOURCE,
}


def _output(fields: dict[str, Any]) -> Output:
    return Output("topic", json.dumps(fields).encode(), b"key")


@pytest.mark.parametrize("limit", [1_000, 5_000, 50_000, 100_000])
def test_a_dead_letter_keeps_as_much_of_its_payload_as_fits(limit: int) -> None:
    shortened = shorten(_output(LETTER), limit)
    assert shortened is not None
    assert limit - 8 < len(shortened.value) <= limit
    letter = DeadLetter.model_validate_json(shortened.value)
    assert letter.payload is not None
    assert (bytes(range(256)) * 400).startswith(letter.payload)
    assert letter.payload_size == 102_400
    assert "no PNG" in letter.failure.message
    assert "the payload was cut" in letter.failure.message
    assert "images/3, offset 17" in letter.failure.message
    assert (shortened.topic, shortened.key) == ("topic", b"key")


def test_a_dead_letter_that_is_cut_again_says_so_once() -> None:
    once = shorten(_output(LETTER), 50_000)
    assert once is not None
    twice = shorten(once, 25_000)
    assert twice is not None
    assert DeadLetter.model_validate_json(twice.value).failure.message.count("was cut") == 1


def test_headers_go_before_the_letter_does() -> None:
    shortened = shorten(_output(LETTER), 700)
    assert shortened is not None
    assert DeadLetter.model_validate_json(shortened.value).headers == ()
    assert shorten(_output(LETTER), 100) is None


def test_a_review_item_loses_its_features_first() -> None:
    shortened = shorten(_output(ITEM), 80_000)
    assert shortened is not None
    item = ReviewItem.model_validate_json(shortened.value)
    assert item.features == {}
    assert item.image is not None
    assert item.failure is None


def test_a_review_item_that_loses_its_image_says_so() -> None:
    shortened = shorten(_output(ITEM), 10_000)
    assert shortened is not None
    item = ReviewItem.model_validate_json(shortened.value)
    assert item.image is None
    assert item.prompt is not None
    assert item.prompt.endswith("…")
    assert item.failure is not None
    assert "left out" in item.failure.message
    assert "images/3, offset 17" in item.failure.message


def test_a_verdict_has_nothing_that_could_go() -> None:
    assert shorten(_output({"schema": "sluice.verdict/1"}), 10) is None
