"""What the commands of `sluice trust` read from the topics."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError

from schemas import AuditPlan, Decision, Verdict
from worker.cli.errors import CommandFailed
from worker.cli.stream import Stream
from worker.review.answers import Status
from worker.review.item_state import CLOSED, fold
from worker.review.sampling import AUDIT_QUEUE

_T = TypeVar("_T", AuditPlan, Verdict, Decision)


def read_records(stream: Stream, topic: str, contract: type[_T], unreadable: Counter[str]) -> Iterator[_T]:
    """The topic's records up to its current end. Counts invalid ones."""
    for record in stream.read(topic, from_beginning=True, follow=False):
        if record.value is None:
            continue  # a tombstone of a compacted topic
        try:
            yield contract.model_validate_json(record.value)
        except ValidationError:
            unreadable[topic] += 1


def settled_audits(decisions: Iterator[Decision]) -> dict[str, bool]:
    """Verdict id → whether reviewers found the image bad, for settled audit items."""
    by_item: dict[str, list[Decision]] = {}
    for decision in decisions:
        if decision.queue == AUDIT_QUEUE:
            by_item.setdefault(decision.item_id, []).append(decision)
    states = ((records[0].verdict_id, fold(records).status) for records in by_item.values())
    return {verdict_id: status is Status.REJECTED for verdict_id, status in states if status in CLOSED}


def require_readable(unreadable: Mapping[str, int]) -> None:
    """Raises CommandFailed if records could not be read; `unreadable` has their numbers by topic."""
    if unreadable:
        numbers = ", ".join(f"{number:,} of {topic}" for topic, number in sorted(unreadable.items()))
        raise CommandFailed(f"these records could not be read and were skipped: {numbers}")
