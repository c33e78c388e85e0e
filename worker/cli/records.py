"""Formats records, one line each."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum

from rich.text import Text

from schemas import (
    AuditEntry,
    AuditPlan,
    DeadLetter,
    DeadLetterAction,
    Decision,
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
    """A topic by its purpose; the settings hold its name."""

    IMAGES = "images"
    VERDICTS = "verdicts"
    REVIEW = "review"
    DECISIONS = "decisions"
    AUDIT = "audit"
    AUDIT_PLANS = "audit_plans"
    DEAD = "dead"
    DEAD_ACTIONS = "dead_actions"
    REPLAYS = "replays"
    RETRY_1 = "retry_1"
    RETRY_2 = "retry_2"
    RETRY_3 = "retry_3"
    SURPLUS = "surplus"
    SURPLUS_LONG = "surplus_long"


def describe(topic: Topic, value: bytes) -> Text:
    """Describes a record of the topic in one line. Raises pydantic's ValidationError for an invalid record."""
    return _DESCRIBE[topic](value)


def image_name(reference: ImageReference | None) -> str:
    """The display name of an image: a path or an address."""
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
    overload = verdict.route.overload
    what = verdict.failure.reason.value if verdict.failure else " ".join(verdict.route.labels)
    return _line(
        verdict.judged_at,
        _quality(verdict.scores),
        _padded(route_text(verdict.route)),
        verdict.event_id if verdict.image is None else image_name(verdict.image),
        what,
        "cached" if verdict.cached else "",
        "" if overload is None else f"{overload.mode}: queue {overload.queue} is overloaded",
        *(f"shadow {each.name}: {route_text(each.route).plain}" for each in verdict.shadow if each.route is not None),
    )


def _review_item(value: bytes) -> Text:
    item = ReviewItem.model_validate_json(value)
    route = Route(action="review", queue=item.queue, rule=item.rule)
    what = item.failure.reason.value if item.failure else " ".join(item.labels)
    name = item.event_id if item.image is None else image_name(item.image)
    return _line(
        item.created_at, _quality(item.scores), _padded(route_text(route)), name, f"priority {item.priority}", what
    )


def _decision(value: bytes) -> Text:
    decision = Decision.model_validate_json(value)
    return _line(
        decision.decided_at,
        _padded(Text(decision.outcome, style=_OUTCOME_STYLES.get(decision.outcome, ""))),
        decision.reviewer,
        decision.queue,
        decision.event_id,
        f"resolved: {decision.resolution}" if decision.resolution else "",
        f"to {decision.assignee}" if decision.assignee else "",
        "undo" if decision.undoes else "",
        "with a near duplicate" if decision.decided_with else "",
        " ".join(decision.labels),
        _short(decision.note or ""),
    )


def _audit_entry(value: bytes) -> Text:
    entry = AuditEntry.model_validate_json(value)
    subjects = " ".join(entry.subjects[:_SUBJECTS])
    more = f"and {len(entry.subjects) - _SUBJECTS:,} more" if len(entry.subjects) > _SUBJECTS else ""
    detail = (f"{name}={_short(text)}" for name, text in entry.detail.items())
    return _line(entry.at, _padded(Text(printable(entry.action), style="bold")), entry.actor, subjects, more, *detail)


def _audit_plan(value: bytes) -> Text:
    plan = AuditPlan.model_validate_json(value)
    strata = (f"{stratum.name} {stratum.probability:.2%}" for stratum in plan.strata)
    return _line(plan.effective_from, *strata)


def _dead_letter(value: bytes) -> Text:
    letter = DeadLetter.model_validate_json(value)
    reason = Text(letter.failure.reason.value, style=STYLES["reject"])
    source = f"{letter.source.topic}/{letter.source.partition}@{letter.source.offset}"
    return _line(letter.failed_at, _padded(reason), source, letter.failure.message)


def _dead_letter_action(value: bytes) -> Text:
    action = DeadLetterAction.model_validate_json(value)
    what = _padded(Text(action.action))
    return _line(action.at, what, action.actor, action.letter_id, action.event_id, _short(action.reason))


def _event(value: bytes) -> Text:
    event = ImageEvent.model_validate_json(value)
    return _line(event.occurred_at, event.tenant, event.id, image_name(event.image), event.generator or "")


_DESCRIBE: Mapping[Topic, Callable[[bytes], Text]] = {
    Topic.IMAGES: _event,
    Topic.VERDICTS: _verdict,
    Topic.REVIEW: _review_item,
    Topic.DECISIONS: _decision,
    Topic.AUDIT: _audit_entry,
    Topic.AUDIT_PLANS: _audit_plan,
    Topic.DEAD: _dead_letter,
    Topic.DEAD_ACTIONS: _dead_letter_action,
    Topic.REPLAYS: _verdict,
    Topic.RETRY_1: _event,
    Topic.RETRY_2: _event,
    Topic.RETRY_3: _event,
    Topic.SURPLUS: _event,
    Topic.SURPLUS_LONG: _event,
}


_OUTCOME_STYLES: Mapping[str, str] = {
    "approve": STYLES["pass"],
    "reject": STYLES["reject"],
    "escalate": STYLES["review"],
    "hold": STYLES["review"],
}
_SUBJECTS = 3
_SHORT = 72


def _short(text: str) -> str:
    """The first line of a text that may be a whole policy; `--json` prints all of it."""
    first, _, more = text.partition("\n")
    return f"{first[:_SHORT]}…" if more or len(first) > _SHORT else first


def _quality(scores: Scores | None) -> Text:
    return Text("   -") if scores is None else Text(f"{scores.quality:4.2f}", style="bold")


def _padded(text: Text) -> Text:
    text.pad_right(max(22 - len(text), 0))
    return text


def _line(time: datetime, *parts: Text | str) -> Text:
    shown = [part if isinstance(part, Text) else Text(printable(part)) for part in parts if part]
    return Text("  ").join([Text(f"{time:%H:%M:%S}", style="dim"), *shown])
