"""Events of all desks, published through Redis."""

import json
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import redis
import structlog

from worker.review.answers import DeskEvent, Status
from worker.review.index import keys

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 1.0
TOGETHER_SECONDS: Final = 0.25
"""Events within this time are delivered together, so that a page is not woken for each of them."""
MOST: Final = 1000
"""The most events that are delivered together."""


def publish(client: redis.Redis, *events: DeskEvent) -> None:
    """Publishes events that do not come from a change of the index."""
    with client.pipeline(transaction=False) as pipeline:
        for event in events:
            queue(pipeline, event)
        pipeline.execute()


def queue(pipeline: Any, event: DeskEvent) -> None:
    """Adds the command that publishes an event to a pipeline."""
    text = {
        "kind": event.kind,
        "at": event.at.isoformat(),
        "queue": event.queue,
        "item_id": event.item_id,
        "actor": event.actor,
        "status": event.status,
    }
    pipeline.publish(keys.EVENTS, json.dumps(text))


def subscribe(client: redis.Redis, stop: threading.Event) -> Iterator[Sequence[DeskEvent]]:
    """Events from now on, those of TOGETHER_SECONDS at a time; nothing each second without one. Raises redis.RedisError
    when Redis is away."""
    with client.pubsub() as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(keys.EVENTS)
        while not stop.is_set():
            message: Any = channel.get_message(timeout=WAIT_SECONDS)
            if message is not None:
                stop.wait(TOGETHER_SECONDS)
            told = []
            while message is not None:
                if message["type"] == "message" and (event := _parsed(message["data"])) is not None:
                    told.append(event)
                message = channel.get_message() if len(told) < MOST else None
            yield told


def _parsed(text: bytes) -> DeskEvent | None:
    try:
        told = json.loads(text)
        status = Status(told["status"]) if told["status"] is not None else None
        at = datetime.fromisoformat(told["at"])
        return DeskEvent(told["kind"], at, told["queue"], told["item_id"], told["actor"], status)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("event_passed_over", error=f"{type(error).__name__}: {error}")
        return None
