"""A desk with its background loops: one keeps the index up to date, and one for each webhook delivers."""

import random
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import redis

from worker.intake.log import LogError
from worker.policy.review_load import FileLoad, RedisLoad
from worker.review.audit_planner import AuditPlanner
from worker.review.catalogue.catalogue import FILE, Catalogue
from worker.review.desk import Desk
from worker.review.load_publisher import LoadPublisher
from worker.review.open_topics import open_topics
from worker.review.projector import Projector
from worker.review.queue_metrics import QueueMetrics
from worker.review.retention_metrics import RetentionMetrics
from worker.review.topics import Topics
from worker.review.webhook import Webhook
from worker.review.webhook_delivery import WebhookDelivery, delivery_counter
from worker.review.webhook_feed import open_feed
from worker.settings import Settings
from worker.supervision import Supervisor
from worker.telemetry.open_tracing import open_tracing

if TYPE_CHECKING:
    from worker.review.decision_traces import DecisionTraces

CLOSE_SECONDS: Final = 15.0


class RunningDesk(Desk):
    """Its loops run until it is closed. The supervisor restarts those that fail and reports them."""

    def __init__(
        self,
        settings: Settings,
        data: Path | None,
        client: redis.Redis,
        supervisor: Supervisor | None = None,
        folder: Path | None = None,
    ) -> None:
        """As for `open_desk`. Raises LogError."""
        self.supervisor = supervisor or Supervisor()
        self._open = ExitStack()
        place = folder or data or Path(self._open.enter_context(TemporaryDirectory(prefix="sluice-desk-")))
        catalogue = Catalogue(place / FILE, settings.review)
        self._open.callback(catalogue.close)
        topics = self._opened(settings, data)
        super().__init__(settings, topics, client, catalogue, traces=self._decision_traces(settings, topics))
        retention = RetentionMetrics(self._now)
        projector = Projector(
            settings, self._topics, client, self._index, catalogue, self._now, retention, self._index.server_time
        )
        metrics = QueueMetrics(self.queues, settings.review, self._now)
        for each in (metrics, retention):
            self.supervisor.registry.register(each)
            self._open.callback(self.supervisor.registry.unregister, each)
        planner = AuditPlanner(
            settings, self._opened(settings, data), client, catalogue, lambda: projector.is_caught_up, self._now
        )
        load = LoadPublisher(self.queues, RedisLoad(client) if data is None else FileLoad(data), self._now)
        loops = [
            ("projector", projector.run),
            ("queue-metrics", metrics.run),
            ("audit-planner", planner.run),
            ("load-publisher", load.run),
        ]
        counter = delivery_counter()
        self.supervisor.registry.register(counter)
        self._open.callback(self.supervisor.registry.unregister, counter)
        for name, receiver in settings.review.webhooks.items():
            webhook = Webhook(name, receiver)
            self._open.callback(webhook.close)
            delivery = WebhookDelivery(
                name,
                receiver,
                open_feed(settings, receiver),
                self._opened(settings, data),
                client,
                webhook,
                self._now,
                counter=counter,
                rng=random.Random(),  # noqa: S311  # jitter is no secret
            )
            loops.append((f"webhook-{name}", delivery.run))
        self._loops = [self.supervisor.start(name, run, expected=(LogError, redis.RedisError)) for name, run in loops]

    def close(self) -> None:
        for loop in self._loops:
            self.supervisor.stop(loop, CLOSE_SECONDS)
        self._open.close()

    def _decision_traces(self, settings: Settings, topics: Topics) -> "DecisionTraces | None":
        tracing = open_tracing(settings.telemetry, "sluice-desk")
        if tracing is None:
            return None
        from worker.review.decision_traces import DecisionTraces  # loads OpenTelemetry

        traces = DecisionTraces(tracing, topics)
        self._open.callback(traces.close)
        return traces

    def _opened(self, settings: Settings, data: Path | None) -> Topics:
        topics = open_topics(settings, data)
        self._open.callback(topics.close)
        return topics


def open_desk(
    settings: Settings,
    data: Path | None,
    redis_client: redis.Redis,
    supervisor: Supervisor | None = None,
    folder: Path | None = None,
) -> RunningDesk:
    """A desk on Kafka, or on the embedded log below `data`, that keeps its index up to date until it is closed.

    `redis_client` and `supervisor` stay the caller's; without one the desk has its own. `folder` keeps the catalogue,
    so that the topics need not be read again after a restart; absent: `data`, or else a temporary one. Raises LogError.
    """
    return RunningDesk(settings, data, redis_client, supervisor, folder)
