"""Runs a worker on its own thread. An intake replica has one, and replaces it when its settings change."""

import threading

import structlog
from prometheus_client import CollectorRegistry

from worker.cache.client import connect
from worker.intake.kafka_client import open_kafka_log
from worker.intake.kafka_producer import for_one_worker
from worker.intake.kafka_reading import explained, open_reader, partitions_of
from worker.intake.log import Log
from worker.preflight import KafkaWatch, require_servers
from worker.scoring.engine import Engine
from worker.scoring.model import Model
from worker.settings import Settings
from worker.telemetry.server import Health
from worker.wiring import Worker

log = structlog.get_logger(__name__)

CLOSE_SECONDS = 30.0
"""Time to leave the group and close clients after the drain."""


class WorkerThread:
    """Runs one worker (a member of the consumer group) until it has drained. Several may run at once."""

    def __init__(self, settings: Settings, model: Model, engine: Engine) -> None:
        """Raises PolicyError if the policy cannot be used, LogError if Kafka cannot be reached or lacks what a worker
        needs.
        """
        self._settings = settings
        self._kafka = for_one_worker(settings.kafka)
        require_servers(settings)
        self.partitions = count_partitions(settings)
        watch = KafkaWatch(settings.kafka)
        self._worker = Worker(settings, self._open_log, connect(settings.redis), engine, model, kafka_watch=watch)
        self._stop = threading.Event()
        self._settled = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sluice-intake", daemon=True)

    @property
    def registry(self) -> CollectorRegistry:
        return self._worker.registry

    def start(self) -> None:
        """Returns when the worker has opened the log. Raises LogError, or the error that ended it before that."""
        self._thread.start()
        self._settled.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Tells the worker to finish what is in flight; does not wait."""
        self._stop.set()

    def join(self) -> bool:
        """Waits until the worker has drained and closed everything. False if it has not in time."""
        self._thread.join(self._settings.intake.drain_seconds + CLOSE_SECONDS)
        return not self._thread.is_alive()

    def health(self) -> Health:
        """Whether the worker is healthy, and if not, why."""
        if self._thread.is_alive():
            return self._worker.health()
        return Health(False, (f"the intake has ended: {self._failure or 'it was stopped'}",))

    def backlog(self) -> int:
        """Records of this worker's partitions that have no committed verdict."""
        lag = self._worker.metrics.consumer_lag_records
        return int(sum(sample.value for family in lag.collect() for sample in family.samples))

    def _open_log(self) -> Log:
        opened = open_kafka_log(self._kafka, self._settings.telemetry, topics=self._kafka.topics.judged)
        self._settled.set()
        return opened

    def _run(self) -> None:
        try:
            self._worker.run(self._stop)
        except BaseException as error:  # the health check must report any error
            self._failure = error
            log.exception("intake_ended")
        finally:
            self._settled.set()


def count_partitions(settings: Settings) -> int:
    """The number of partitions of the image topic. Raises LogError."""
    with explained(settings.kafka):
        consumer = open_reader(settings.kafka)
        try:
            return len(partitions_of(consumer, settings.kafka.topics.images, settings.kafka))
        finally:
            consumer.close()
