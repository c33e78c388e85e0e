"""Delivers the records of a topic to a webhook, in order, with retries."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Final

import redis
import structlog
from prometheus_client import Counter

from worker.backoff import Backoff
from worker.intake.log import Partition
from worker.review.index import keys
from worker.review.singleton_lease import SingletonLease
from worker.review.topics import Topics
from worker.review.undelivered import Undelivered, UndeliveredMessage, place_of
from worker.review.webhook import NotDelivered, Refused, Webhook
from worker.review.webhook_feed import Feed, Message
from worker.settings import WebhookSettings

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 60.0
WAIT_SECONDS: Final = 0.5
PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 60.0
PENDING: Final = 1000
RESENT_AT_ONCE: Final = 20
STATUS_SECONDS: Final = 15.0
CATCH_UP: Final = timedelta(hours=1)
"""When Redis does not know what was delivered (first start, lost Redis), only what is younger than this is sent."""


def delivery_counter() -> Counter:
    """`outcome`: `delivered`, `refused` (the receiver will not take it) or `given_up` (after `max_attempts`)."""
    return Counter(
        "sluice_webhook_messages", "Messages of webhooks by what became of them.", ["webhook", "outcome"], registry=None
    )


class WebhookDelivery:
    """Sends each message of a feed to one webhook.

    Delivery is at least once: after a crash or a lost Redis some messages come again, with the same ids. What the
    receiver refuses, or does not take after `max_attempts`, is listed as undelivered, and the next goes on. Of all
    desks one delivers.
    """

    def __init__(
        self,
        name: str,
        settings: WebhookSettings,
        feed: Feed,
        topics: Topics,
        client: redis.Redis,
        webhook: Webhook,
        now: Callable[[], datetime],
        *,
        counter: Counter,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._max_attempts = settings.max_attempts
        self._feed = feed
        self._topics = topics
        self._redis = client
        self._webhook = webhook
        self._now = now
        self._counter = counter
        self._rng = rng
        self._clock = clock
        self._undelivered = Undelivered(client, name)
        lease_seconds = max(LEASE_SECONDS, 2 * LONGEST_PAUSE_SECONDS)
        self._job = SingletonLease(client, keys.courier(name), uuid.uuid4().hex, lease_seconds)
        self._positions: dict[Partition, int] | None = None
        self._known: frozenset[Partition] = frozenset()
        self._not_before = now()
        self._stored: dict[Partition, int] = {}
        self._status_due = 0.0

    def run(self, stop: threading.Event) -> None:
        """Delivers until `stop`. Raises LogError and redis.RedisError; may then be called again."""
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
        self._feed.clear()

    def step(self, stop: threading.Event) -> None:
        """Reads what is new and delivers what is due. Raises LogError, redis.RedisError."""
        positions = self._load() if self._positions is None else self._positions
        if len(self._feed) < PENDING:
            batch = self._topics.read(positions, WAIT_SECONDS)
            for record in batch.records:
                self._feed.add(record, not_before=None if record.partition in self._known else self._not_before)
            self._positions = dict(batch.positions)
        elif not stop.is_set():
            stop.wait(WAIT_SECONDS)
        while not stop.is_set() and (message := self._feed.next(self._now())) is not None:
            if not self._deliver(message, stop):
                return
            self._feed.drop()
            self._store({record.partition: record.offset + 1 for record in message.records})
        if not len(self._feed) and self._positions is not None:
            self._store(self._positions)
        self._send_again(stop)
        self._report()

    def _load(self) -> dict[Partition, int]:
        stored: Any = self._redis.hgetall(keys.delivered(self._name))
        found = {p: int(stored.get(keys.position_field(p).encode(), 0)) for p in self._topics.ends(self._feed.topic)}
        self._known = frozenset(p for p in found if keys.position_field(p).encode() in stored)
        self._not_before = self._now() - CATCH_UP
        self._stored = {}
        self._positions = found
        return found

    def _store(self, positions: dict[Partition, int]) -> None:
        """What lies before these positions is done with."""
        changed = {p: offset for p, offset in positions.items() if self._stored.get(p) != offset}
        if changed:
            self._redis.hset(
                keys.delivered(self._name), mapping={keys.position_field(p): str(at) for p, at in changed.items()}
            )
            self._stored |= changed

    def _deliver(self, message: Message, stop: threading.Event) -> bool:
        """Delivers a message, or lists it as undelivered; False when asked to stop before."""
        reason = ""
        backoff = Backoff(PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
        for attempt in range(1, self._max_attempts + 1):
            try:
                self._webhook.post(message.id, message.body, int(self._now().timestamp()))
            except Refused as error:
                self._give_up(message, "refused", str(error), attempt)
                return True
            except NotDelivered as error:
                reason = str(error)
                log.warning("webhook_failed", webhook=self._name, message=message.id, attempt=attempt, reason=reason)
                self._job.hold()
                if stop.wait(backoff.seconds(attempt, self._rng)):
                    return False
            else:
                self._counter.labels(self._name, "delivered").inc()
                return True
        self._give_up(message, "given_up", reason, self._max_attempts)
        return True

    def _give_up(self, message: Message, outcome: str, reason: str, attempts: int) -> None:
        self._undelivered.add(
            UndeliveredMessage(
                id=message.id,
                records=tuple(place_of(record.partition, record.offset) for record in message.records),
                reason=reason,
                attempts=attempts,
                failed_at=self._now(),
            )
        )
        self._counter.labels(self._name, outcome).inc()
        log.error("webhook_undelivered", webhook=self._name, message=message.id, attempts=attempts, reason=reason)

    def _send_again(self, stop: threading.Event) -> None:
        """Tries once what somebody asked for; what fails is listed again."""
        for wanted in self._undelivered.wanted(RESENT_AT_ONCE):
            if stop.is_set():
                return
            found = [self._topics.record(Partition(topic, number), offset) for topic, number, offset in wanted.records]
            messages = list(self._feed.again([record for record in found if record is not None]))
            if not messages:
                gone = "its records are kept no more, so it cannot be sent again"
                self._undelivered.add(wanted.model_copy(update={"reason": gone, "failed_at": self._now()}))
                continue
            self._undelivered.remove(wanted.id)
            for message in messages:
                self._send_once(message, wanted.attempts + 1)
            self._job.hold()

    def _send_once(self, message: Message, attempts: int) -> None:
        try:
            self._webhook.post(message.id, message.body, int(self._now().timestamp()))
        except (Refused, NotDelivered) as error:
            self._give_up(message, "refused" if isinstance(error, Refused) else "given_up", str(error), attempts)
        else:
            self._counter.labels(self._name, "delivered").inc()

    def _report(self) -> None:
        """Tells other desks how many records this webhook is behind; finds new partitions."""
        if self._positions is None or (now := self._clock()) < self._status_due:
            return
        self._status_due = now + STATUS_SECONDS
        ends = self._topics.ends(self._feed.topic)
        self._positions = dict.fromkeys(ends, 0) | self._positions
        behind = sum(max(0, end - self._stored.get(p, self._positions.get(p, 0))) for p, end in ends.items())
        self._redis.set(keys.webhook_behind(self._name), behind, ex=int(8 * STATUS_SECONDS))
