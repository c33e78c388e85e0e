"""A desk with threads of its own: one keeps the index up to date, one brings decisions to the webhook, if any."""

import random
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import redis

from worker.review.courier import Courier
from worker.review.desk import Desk
from worker.review.projector import Projector
from worker.review.topics import Topics, open_topics
from worker.review.webhook import Webhook
from worker.settings import Settings

CLOSE_SECONDS: Final = 15.0


class RunningDesk(Desk):
    """Works until it is closed."""

    def __init__(self, settings: Settings, data: Path | None, client: redis.Redis) -> None:
        """Raises LogError."""
        self._open = ExitStack()
        super().__init__(settings, self._opened(settings, data), client)
        self._stop = threading.Event()
        projector = Projector(settings, self._topics, client, self._index, self._now)
        jobs: list[tuple[str, Callable[[threading.Event], None]]] = [("projector", projector.run)]
        if settings.review.webhook is not None:
            webhook = Webhook(settings.review.webhook)
            self._open.callback(webhook.close)
            courier = Courier(
                settings,
                self._opened(settings, data),
                client,
                webhook,
                self._now,
                max_attempts=settings.review.webhook.max_attempts,
                rng=random.Random(),  # noqa: S311  # jitter is no secret
            )
            jobs.append(("courier", courier.run))
        self._threads = [
            threading.Thread(target=run, args=(self._stop,), name=f"sluice-{name}", daemon=True) for name, run in jobs
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=CLOSE_SECONDS)
        self._open.close()

    def _opened(self, settings: Settings, data: Path | None) -> Topics:
        topics = open_topics(settings, data)
        self._open.callback(topics.close)
        return topics


def open_desk(settings: Settings, data: Path | None, redis_client: redis.Redis) -> Desk:
    """A desk on Kafka, or on the embedded log below `data`, that keeps its index up to date until it is closed.

    `redis_client` stays the caller's. Raises LogError.
    """
    return RunningDesk(settings, data, redis_client)
