"""From routes to topics: every record that Sluice writes is made here.

Verdicts and review items are written from plain values, not through their contracts: validating again what was
validated on its way in cost a third of the time of an event that is in the cache. A test compares every byte with what
the contracts write.
"""

import hashlib
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, TypedDict

import msgspec

from schemas import (
    NO_PROVENANCE,
    DeadLetter,
    Failure,
    ImageEvent,
    InlineReference,
    Provenance,
    Route,
    Scores,
    ShadowRoute,
)
from worker.intake.log import Output, Record
from worker.judging.job import TimingFields
from worker.settings import TopicSettings

ROOM_FOR_OURS = 96 * 1024
"""What we add to an event's own bytes when we pass it on: scores, features, names."""

_NOTHING_GIVEN: Final[dict[str, object]] = NO_PROVENANCE.model_dump()

# Contracts inside a message are written field by field, as they were validated.
_encode = msgspec.json.Encoder(enc_hook=vars).encode


class SourceFields(TypedDict):
    """The fields of a `schemas.Source`."""

    topic: str
    partition: int
    offset: int
    index: int


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

    def under(self, policy: str) -> "Outbox":
        """An outbox as this one, that writes what the policy with this digest decides."""
        other = copy(self)
        other._identity = replace(self._identity, policy=policy)
        return other

    def scored(
        self,
        event: ImageEvent,
        source: SourceFields,
        content_hash: str,
        scores: Scores,
        features: Mapping[str, bytes],
        route: Route,
        timings: TimingFields,
        *,
        cached: bool,
        shadow: tuple[ShadowRoute, ...] = (),
        provenance: Provenance | None = None,
        overloaded: tuple[str, ...] = (),
    ) -> tuple[Output, ...]:
        """The records of an event that has scores. Raises ValueError for a review without a queue."""
        verdict = self._verdict(
            event.id,
            event,
            source,
            route,
            timings,
            shadow,
            content_hash=content_hash,
            scores=scores,
            cached=cached,
            provenance=provenance,
            overloaded=overloaded,
        )
        key = event.id.encode()
        written = Output(self._topics.verdicts, _encode(verdict), key)
        if route.action != "review":
            return (written,)
        item = _review_item(event, verdict, route, features)
        return (written, Output(self._topics.review, _encode(item), key))

    def failed(
        self,
        record: Record,
        event: ImageEvent | None,
        source: SourceFields,
        failure: Failure,
        route: Route,
        timings: TimingFields,
        *,
        shadow: tuple[ShadowRoute, ...] = (),
    ) -> tuple[Output, ...]:
        """The records of an event that could not be judged: it is kept whole, and people will look at it.

        A record that holds no event gets the id `record:topic/partition/offset`.
        """
        event_id = event.id if event else f"record:{source['topic']}/{source['partition']}/{source['offset']}"
        verdict = self._verdict(event_id, event, source, route, timings, shadow, failure=failure)
        value = record.value
        letter = DeadLetter.model_validate(
            {
                "event_id": event_id,
                "verdict_id": verdict["verdict_id"],
                "tenant": event.tenant if event else None,
                "failed_at": verdict["judged_at"],
                "failure": failure,
                "source": source,
                "key": record.key[:1024] if record.key is not None else None,
                "headers": _bounded(record.headers, ROOM_FOR_OURS // 4),
                "payload": value[: self._max_payload] if value is not None else None,
                "payload_size": len(value) if value is not None else 0,
            }
        )
        key = event_id.encode()
        return (
            Output(self._topics.verdicts, _encode(verdict), key),
            Output(self._topics.review, _encode(_review_item(event, verdict, route, {})), key),
            Output(self._topics.dead, letter.model_dump_json().encode(), key),
        )

    def _verdict(
        self,
        event_id: str,
        event: ImageEvent | None,
        source: SourceFields,
        route: Route,
        timings: TimingFields,
        shadow: tuple[ShadowRoute, ...],
        *,
        content_hash: str | None = None,
        scores: Scores | None = None,
        failure: Failure | None = None,
        cached: bool = False,
        provenance: Provenance | None = None,
        overloaded: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """The fields of a `schemas.Verdict`, in its order."""
        return {
            "schema": "sluice.verdict/1",
            "verdict_id": self._verdict_id(event_id, content_hash),
            "event_id": event_id,
            "tenant": event.tenant if event else "default",
            "occurred_at": event.occurred_at if event else None,
            "judged_at": self._now(),
            "image": None if event is None or isinstance(event.image, InlineReference) else event.image,
            "content_hash": content_hash,
            "status": "failed" if scores is None else "scored",
            "scores": scores,
            "failure": failure,
            "route": route,
            "shadow": shadow,
            "overloaded": overloaded,
            "cached": cached,
            "model": self._identity.model,
            "policy": self._identity.policy,
            "generator": event.generator if event else None,
            "provenance": None if provenance is None else _given(provenance),
            "timings": timings,
            "source": source,
        }

    def _verdict_id(self, event_id: str, content_hash: str | None) -> str:
        """The same event, image, model and policy always give the same id, so that consumers can drop repeats."""
        parts = "\0".join((event_id, content_hash or "", self._identity.model, self._identity.policy))
        return hashlib.sha256(parts.encode()).hexdigest()[:32]


def _review_item(
    event: ImageEvent | None, verdict: Mapping[str, object], route: Route, features: Mapping[str, bytes]
) -> dict[str, object]:
    """The fields of a `schemas.ReviewItem`, in its order."""
    if route.queue is None:
        raise ValueError(f"rule {route.rule!r} routes to review without a queue")
    return {
        "schema": "sluice.review-item/1",
        "item_id": verdict["verdict_id"],
        "verdict_id": verdict["verdict_id"],
        "event_id": verdict["event_id"],
        "tenant": verdict["tenant"],
        "queue": route.queue,
        "priority": route.priority,
        "created_at": verdict["judged_at"],
        "image": event.image if event else None,
        "content_hash": verdict["content_hash"],
        "prompt": event.prompt if event else None,
        "generator": verdict["generator"],
        "provenance": verdict["provenance"],
        "scores": verdict["scores"],
        "failure": verdict["failure"],
        "labels": route.labels,
        "rule": route.rule,
        "features": features,
        "model": verdict["model"],
        "policy": verdict["policy"],
        "source": verdict["source"],
        "audit": None,
    }


def _given(provenance: Provenance) -> dict[str, object]:
    """As the contract writes it: without what is absent."""
    if provenance is NO_PROVENANCE:  # as most are
        return _NOTHING_GIVEN
    return {name: value for name, value in vars(provenance).items() if value is not None}


def _bounded(headers: tuple[tuple[str, bytes | None], ...], limit: int) -> tuple[tuple[str, bytes | None], ...]:
    """The first headers that fit into `limit` bytes; a sender could put anything there."""
    kept: list[tuple[str, bytes | None]] = []
    for name, value in headers:
        limit -= len(name) + len(value or b"")
        if limit < 0:
            break
        kept.append((name, value))
    return tuple(kept)
