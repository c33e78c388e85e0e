"""Publishes what waits in the review queues, for the overload rules of the policy."""

import threading
from collections.abc import Callable, Sequence
from datetime import datetime

from worker.policy.overload import QueueLoad
from worker.policy.review_load import PUBLISH_SECONDS, LoadStore
from worker.review.answers import QueueOverview


class LoadPublisher:
    """Several desks may publish at the same time: they count the same index."""

    def __init__(
        self, overview: Callable[[], Sequence[QueueOverview]], store: LoadStore, now: Callable[[], datetime]
    ) -> None:
        self._overview = overview
        self._store = store
        self._now = now

    def run(self, stop: threading.Event) -> None:
        """Publishes every few seconds until `stop`. Raises redis.RedisError and OSError."""
        while not stop.is_set():
            self.publish()
            stop.wait(PUBLISH_SECONDS)

    def publish(self) -> None:
        """Publishes the present load once."""
        now = self._now()
        self._store.write(
            {
                queue.name: QueueLoad(
                    queue.open,
                    0.0 if queue.oldest_at is None else max(0.0, (now - queue.oldest_at).total_seconds()),
                )
                for queue in self._overview()
            }
        )
