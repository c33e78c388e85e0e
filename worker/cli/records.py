"""Records as lines for people."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from rich.text import Text

from schemas import (
    DeadLetter,
    FileReference,
    HttpReference,
    ImageEvent,
    ImageReference,
    ReviewItem,
    Route,
    S3Reference,
    Scores,
    Verdict,
)
from worker.cli.console import STYLES, printable, route_text


class Topic(StrEnum):
    """A topic by what it is for; the settings know its name."""

    IMAGES = "images"
    VERDICTS = "verdicts"
    REVIEW = "review"
    DEAD = "dead"


def describe(topic: Topic, value: bytes) -> Text:
    """One line on a record of the topic. Raises pydantic's ValidationError when it is none."""
    return _DESCRIBE[topic](value)


def image_name(reference: ImageReference | None) -> str:
    """What people call an image: a path, an address."""
    match reference:
        case FileReference():
            return reference.path
        case S3Reference():
            return f"s3://{reference.bucket}/{reference.key}"
        case HttpReference():
            return reference.url
        case _:
            return "(inline)"


def _verdict(value: bytes) -> Text:
    verdict = Verdict.model_validate_json(value)
    what = verdict.failure.reason.value if verdict.failure else " ".join(verdict.route.labels)
    return _line(
        verdict.judged_at,
        _quality(verdict.scores),
        _padded(route_text(verdict.route)),
        verdict.event_id if verdict.image is None else image_name(verdict.image),
        what,
        "cached" if verdict.cached else "",
    )


def _review_item(value: bytes) -> Text:
    item = ReviewItem.model_validate_json(value)
    route = Route(action="review", queue=item.queue, rule=item.rule)
    what = item.failure.reason.value if item.failure else " ".join(item.labels)
    name = item.event_id if item.image is None else image_name(item.image)
    return _line(
        item.created_at, _quality(item.scores), _padded(route_text(route)), name, f"priority {item.priority}", what
    )


def _dead_letter(value: bytes) -> Text:
    letter = DeadLetter.model_validate_json(value)
    reason = Text(letter.failure.reason.value, style=STYLES["reject"])
    source = f"{letter.source.topic}/{letter.source.partition}@{letter.source.offset}"
    return _line(letter.failed_at, _padded(reason), source, letter.failure.message)


def _event(value: bytes) -> Text:
    event = ImageEvent.model_validate_json(value)
    return _line(event.occurred_at, event.tenant, event.id, image_name(event.image), event.generator or "")


_DESCRIBE: Mapping[Topic, Callable[[bytes], Text]] = {
    Topic.IMAGES: _event,
    Topic.VERDICTS: _verdict,
    Topic.REVIEW: _review_item,
    Topic.DEAD: _dead_letter,
}


def _quality(scores: Scores | None) -> Text:
    return Text("   -") if scores is None else Text(f"{scores.quality:4.2f}", style="bold")


def _padded(text: Text) -> Text:
    text.pad_right(max(22 - len(text), 0))
    return text


def _line(time: datetime, *parts: Text | str) -> Text:
    shown = [part if isinstance(part, Text) else Text(printable(part)) for part in parts if part]
    return Text("  ").join([Text(f"{time:%H:%M:%S}", style="dim"), *shown])
