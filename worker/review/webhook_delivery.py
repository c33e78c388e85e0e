"""Delivers decisions from their topic to the webhook, in order, with retries."""

import random
import threading
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import redis
import structlog
from pydantic import ValidationError

from schemas import Decision
from worker.intake.log import Partition, Record
from worker.review.index import keys
from worker.review.singleton_lease import SingletonLease
from worker.review.topics import Topics
from worker.review.webhook import NotDelivered, Refused, Webhook
from worker.settings import Settings

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 60.0
WAIT_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
PENDING: Final = 1000
CATCH_UP: Final = timedelta(hours=1)
"""When Redis does not know what was delivered (first start, lost Redis), only decisions younger than this are sent."""


class WebhookDelivery:
    """Each decision is sent once its reviewer can no longer undo it; one that was undone before is not sent at all.

    Delivery is at least once: after a crash or a lost Redis some come again, with the same `decision_id`. What the
    receiver refuses, or does not take after `max_attempts`, is logged and left. Of all desks' couriers one works.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        client: redis.Redis,
        webhook: Webhook,
        now: Callable[[], datetime],
        *,
        max_attempts: int,
        rng: random.Random,
    ) -> None:
        self._topic = settings.kafka.topics.decisions
        self._delay = timedelta(seconds=settings.review.undo_seconds)
        self._lease_seconds = max(LEASE_SECONDS, 2 * LONGEST_PAUSE_SECONDS)
        self._topics = topics
        self._redis = client
        self._webhook = webhook
        self._now = now
        self._max_attempts = max_attempts
        self._rng = rng
        self._job = SingletonLease(client, keys.COURIER, uuid.uuid4().hex, self._lease_seconds)
        self._positions: dict[Partition, int] | None = None
        self._pending: deque[tuple[Decision, Record]] = deque()

    def run(self, stop: threading.Event) -> None:
        """Works until told to stop. Raises LogError and redis.RedisError; may then be called again."""
        self._forget()
        while not stop.is_set():
            if self._job.hold():
                self.step(stop)
            else:
                self._forget()
                stop.wait(PAUSE_SECONDS)
        with suppress(redis.RedisError):  # the lease expires by itself
            self._job.leave()

    def _forget(self) -> None:
        """Another desk may have delivered more since: the next step starts from what Redis has."""
        self._positions = None
        self._pending.clear()

    def step(self, stop: threading.Event) -> None:
        """Reads what is new and delivers what is due. Raises LogError, redis.RedisError."""
        if self._positions is None:
            self._positions = self._stored()
        if len(self._pending) < PENDING:
            batch = self._topics.read(self._positions, WAIT_SECONDS)
            for record in batch.records:
                self._take(record)
            self._positions = dict(batch.positions)
        elif not stop.is_set():
            stop.wait(WAIT_SECONDS)
        while self._pending and not stop.is_set():
            decision, record = self._pending[0]
            if self._now() < decision.decided_at + self._delay or not self._deliver(decision, stop):
                return
            self._pending.popleft()
            self._redis.hset(keys.DELIVERED, _field(record.partition), str(record.offset + 1))

    def _stored(self) -> dict[Partition, int]:
        stored: Any = self._redis.hgetall(keys.DELIVERED)
        return {p: int(stored.get(_field(p).encode(), 0)) for p in self._topics.ends(self._topic)}

    def _take(self, record: Record) -> None:
        try:
            decision = Decision.model_validate_json(record.value or b"")
        except ValidationError:
            return  # the projector has told of it
        if decision.decided_at < self._now() - CATCH_UP and not self._redis.hexists(
            keys.DELIVERED, _field(record.partition)
        ):
            return
        undone = next((pair for pair in self._pending if pair[0].decision_id == decision.undoes), None)
        if undone is not None:
            self._pending.remove(undone)
            return
        self._pending.append((decision, record))

    def _deliver(self, decision: Decision, stop: threading.Event) -> bool:
        """Delivers one decision, or gives up on it; False when asked to stop before."""
        for attempt in range(self._max_attempts):
            try:
                self._webhook.post(decision, int(self._now().timestamp()))
            except Refused as error:
                log.error("webhook_refused", decision=decision.decision_id, reason=str(error))  # noqa: TRY400
                return True
            except NotDelivered as error:
                log.warning("webhook_failed", decision=decision.decision_id, attempt=attempt + 1, reason=str(error))
                self._job.hold()
                if stop.wait(self._rng.uniform(0, min(LONGEST_PAUSE_SECONDS, PAUSE_SECONDS * 2**attempt))):
                    return False
            else:
                return True
        log.error("webhook_given_up", decision=decision.decision_id, attempts=self._max_attempts)
        return True


def _field(partition: Partition) -> str:
    return f"{partition.topic}|{partition.number}"
