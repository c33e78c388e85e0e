"""What happens at any desk, told to all of them through Redis."""

import json
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

import redis
import structlog

from worker.review.answers import DeskEvent, Status
from worker.review.index import keys

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 1.0


def tell(client: redis.Redis, event: DeskEvent) -> None:
    """Publishes an event that no change of the index tells."""
    text = {
        "kind": event.kind,
        "at": event.at.isoformat(),
        "queue": event.queue,
        "item_id": event.item_id,
        "actor": event.actor,
        "status": event.status,
    }
    client.publish(keys.EVENTS, json.dumps(text))


def follow(client: redis.Redis, stop: threading.Event) -> Iterator[DeskEvent | None]:
    """Events from now on; None each second without one. Raises redis.RedisError when Redis is away."""
    with client.pubsub(ignore_subscribe_messages=True) as channel:  # type: ignore[no-untyped-call]
        channel.subscribe(keys.EVENTS)
        while not stop.is_set():
            message: Any = channel.get_message(timeout=WAIT_SECONDS)
            yield _parsed(message["data"]) if message is not None else None


def _parsed(text: bytes) -> DeskEvent | None:
    try:
        told = json.loads(text)
        status = Status(told["status"]) if told["status"] is not None else None
        at = datetime.fromisoformat(told["at"])
        return DeskEvent(told["kind"], at, told["queue"], told["item_id"], told["actor"], status)
    except (ValueError, KeyError, TypeError) as error:
        log.warning("event_passed_over", error=f"{type(error).__name__}: {error}")
        return None
