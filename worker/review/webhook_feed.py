"""What a webhook is sent: messages made of the records of one topic."""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol, TypeVar

from pydantic import ValidationError

from schemas import Decision, Verdict
from worker.intake.log import Record
from worker.settings import Settings, WebhookSettings

_T = TypeVar("_T", Decision, Verdict)

MOST_VERDICTS: Final = 100
MOST_BYTES: Final = 512 * 1024
"""Of a message. A single verdict is much smaller."""


class Message(NamedTuple):
    """`id` follows from what it tells, so that the same message has the same id when it is sent again."""

    id: str
    body: bytes
    records: Sequence[Record]


class Feed(Protocol):
    """Turns records into messages, in their order."""

    topic: str

    def add(self, record: Record, *, not_before: datetime | None) -> None:
        """`not_before`: older ones are left out."""
        ...

    def next(self, now: datetime) -> Message | None:
        """The first message that is due, which stays the first until `drop`."""
        ...

    def drop(self) -> None:
        """Forgets the first message, which is done with."""
        ...

    def again(self, records: Sequence[Record]) -> Iterator[Message]:
        """Messages of records that were sent before."""
        ...

    def clear(self) -> None: ...

    def __len__(self) -> int: ...


class DecisionFeed:
    """Each decision is a message, once its reviewer can no longer undo it; one that was undone before is none."""

    def __init__(self, settings: Settings) -> None:
        self.topic = settings.kafka.topics.decisions
        self._delay = timedelta(seconds=settings.review.undo_seconds)
        self._pending: deque[tuple[Decision, Record]] = deque()

    def add(self, record: Record, *, not_before: datetime | None) -> None:
        decision = _parsed(Decision, record)
        if decision is None or (not_before is not None and decision.decided_at < not_before):
            return
        undone = next((pair for pair in self._pending if pair[0].decision_id == decision.undoes), None)
        if undone is not None:
            self._pending.remove(undone)
        else:
            self._pending.append((decision, record))

    def next(self, now: datetime) -> Message | None:
        if not self._pending or now < self._pending[0][0].decided_at + self._delay:
            return None
        return _decision_message(*self._pending[0])

    def drop(self) -> None:
        self._pending.popleft()

    def again(self, records: Sequence[Record]) -> Iterator[Message]:
        for record in records:
            if (decision := _parsed(Decision, record)) is not None:
                yield _decision_message(decision, record)

    def clear(self) -> None:
        self._pending.clear()

    def __len__(self) -> int:
        return len(self._pending)


class VerdictFeed:
    """Messages of up to MOST_VERDICTS verdicts: `{"verdicts": […]}`, as the topic has them."""

    def __init__(self, settings: Settings, webhook: WebhookSettings) -> None:
        self.topic = settings.kafka.topics.verdicts
        self._actions = frozenset(webhook.actions)
        self._pending: deque[tuple[Verdict, Record]] = deque()

    def add(self, record: Record, *, not_before: datetime | None) -> None:
        verdict = _parsed(Verdict, record)
        if verdict is None or verdict.route.action not in self._actions:
            return
        if not_before is None or verdict.judged_at >= not_before:
            self._pending.append((verdict, record))

    def next(self, now: datetime) -> Message | None:  # noqa: ARG002  # a verdict is due at once
        first = list(itertools.islice(self._pending, self._first_size()))
        return _verdict_message(first) if first else None

    def drop(self) -> None:
        for _ in range(self._first_size()):
            self._pending.popleft()

    def again(self, records: Sequence[Record]) -> Iterator[Message]:
        parsed = [(verdict, record) for record in records if (verdict := _parsed(Verdict, record)) is not None]
        if parsed:
            yield _verdict_message(parsed)

    def clear(self) -> None:
        self._pending.clear()

    def __len__(self) -> int:
        return len(self._pending)

    def _first_size(self) -> int:
        sizes = (len(record.value or b"") + 1 for _, record in itertools.islice(self._pending, MOST_VERDICTS))
        totals = itertools.accumulate(sizes)
        return max(sum(total <= MOST_BYTES for total in totals), min(1, len(self._pending)))


def open_feed(settings: Settings, webhook: WebhookSettings) -> Feed:
    return DecisionFeed(settings) if webhook.sends == "decisions" else VerdictFeed(settings, webhook)


def _parsed(contract: type[_T], record: Record) -> _T | None:
    """None for what does not keep the contract: the projector has logged it."""
    try:
        return contract.model_validate_json(record.value or b"")
    except ValidationError:
        return None


def _decision_message(decision: Decision, record: Record) -> Message:
    return Message(_id([decision.decision_id]), decision.model_dump_json().encode(), (record,))


def _verdict_message(parts: Sequence[tuple[Verdict, Record]]) -> Message:
    body = b'{"verdicts":[%s]}' % b",".join(record.value or b"" for _, record in parts)
    return Message(_id([verdict.verdict_id for verdict, _ in parts]), body, [record for _, record in parts])


def _id(names: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
