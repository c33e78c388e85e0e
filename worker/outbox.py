"""From routes to topics: every record that Sluice writes is made here."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas import (
    Contract,
    DeadLetter,
    Failure,
    ImageEvent,
    InlineReference,
    ReviewItem,
    Route,
    Scores,
    Source,
    Timings,
    Verdict,
)
from worker.intake.log import Output, Record
from worker.settings import TopicSettings

ROOM_FOR_OURS = 96 * 1024
"""What we add to an event's own bytes when we pass it on: scores, features, names."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who judges: part of every verdict and of its id."""

    model: str
    policy: str


class Outbox:
    """Turns judged events into records: a verdict for each, a review item for those that people should see, a dead
    letter for those that could not be judged."""

    def __init__(
        self, topics: TopicSettings, identity: Identity, *, max_message_bytes: int, now: Callable[[], datetime]
    ) -> None:
        self._topics = topics
        self._identity = identity
        self._max_payload = max(0, max_message_bytes - ROOM_FOR_OURS) * 3 // 4  # base64 makes four bytes of three
        self._now = now

    def scored(
        self,
        event: ImageEvent,
        source: Source,
        content_hash: str,
        scores: Scores,
        features: Mapping[str, bytes],
        route: Route,
        timings: Timings,
        *,
        cached: bool,
    ) -> tuple[Output, ...]:
        """The records of an event that has scores."""
        verdict = Verdict(
            verdict_id=self._verdict_id(event.id, content_hash),
            event_id=event.id,
            tenant=event.tenant,
            occurred_at=event.occurred_at,
            judged_at=self._now(),
            image=None if isinstance(event.image, InlineReference) else event.image,
            content_hash=content_hash,
            status="scored",
            scores=scores,
            route=route,
            cached=cached,
            model=self._identity.model,
            policy=self._identity.policy,
            generator=event.generator,
            timings=timings,
            source=source,
        )
        outputs = [self._output(self._topics.verdicts, event.id, verdict)]
        if route.action == "review":
            outputs.append(self._output(self._topics.review, event.id, self._review_item(event, verdict, features)))
        return tuple(outputs)

    def failed(
        self, record: Record, event: ImageEvent | None, source: Source, failure: Failure, route: Route, timings: Timings
    ) -> tuple[Output, ...]:
        """The records of an event that could not be judged: it is kept whole, and people will look at it.

        A record that holds no event gets the id `record:topic/partition/offset`.
        """
        event_id = event.id if event else f"record:{source.topic}/{source.partition}/{source.offset}"
        now = self._now()
        verdict = Verdict(
            verdict_id=self._verdict_id(event_id, None),
            event_id=event_id,
            tenant=event.tenant if event else "default",
            occurred_at=event.occurred_at if event else None,
            judged_at=now,
            image=None if event is None or isinstance(event.image, InlineReference) else event.image,
            content_hash=None,
            status="failed",
            scores=None,
            failure=failure,
            route=route,
            model=self._identity.model,
            policy=self._identity.policy,
            generator=event.generator if event else None,
            timings=timings,
            source=source,
        )
        value = record.value
        letter = DeadLetter(
            event_id=event_id,
            verdict_id=verdict.verdict_id,
            failed_at=now,
            failure=failure,
            source=source,
            key=record.key[:1024] if record.key is not None else None,
            headers=_bounded(record.headers, ROOM_FOR_OURS // 4),
            payload=value[: self._max_payload] if value is not None else None,
            payload_size=len(value) if value is not None else 0,
        )
        return (
            self._output(self._topics.verdicts, event_id, verdict),
            self._output(self._topics.review, event_id, self._review_item(event, verdict, {})),
            self._output(self._topics.dead, event_id, letter),
        )

    def _review_item(self, event: ImageEvent | None, verdict: Verdict, features: Mapping[str, bytes]) -> ReviewItem:
        route = verdict.route
        if route.queue is None:
            raise ValueError(f"rule {route.rule!r} routes to review without a queue")
        return ReviewItem(
            item_id=verdict.verdict_id,
            verdict_id=verdict.verdict_id,
            event_id=verdict.event_id,
            tenant=verdict.tenant,
            queue=route.queue,
            priority=route.priority,
            created_at=verdict.judged_at,
            image=event.image if event else None,
            content_hash=verdict.content_hash,
            prompt=event.prompt if event else None,
            generator=verdict.generator,
            scores=verdict.scores,
            failure=verdict.failure,
            labels=route.labels,
            rule=route.rule,
            features=dict(features),
            model=verdict.model,
            policy=verdict.policy,
            source=verdict.source,
        )

    def _verdict_id(self, event_id: str, content_hash: str | None) -> str:
        """The same event, image, model and policy always give the same id, so that consumers can drop repeats."""
        parts = "\0".join((event_id, content_hash or "", self._identity.model, self._identity.policy))
        return hashlib.sha256(parts.encode()).hexdigest()[:32]

    @staticmethod
    def _output(topic: str, event_id: str, message: Contract) -> Output:
        return Output(topic, message.model_dump_json(by_alias=True).encode(), event_id.encode())


def _bounded(headers: tuple[tuple[str, bytes | None], ...], limit: int) -> tuple[tuple[str, bytes | None], ...]:
    """The first headers that fit into `limit` bytes; a sender could put anything there."""
    kept: list[tuple[str, bytes | None]] = []
    for name, value in headers:
        limit -= len(name) + len(value or b"")
        if limit < 0:
            break
        kept.append((name, value))
    return tuple(kept)
