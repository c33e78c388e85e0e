"""What a drill works on: topics of its own on a real broker, a stream of events, workers, and the count of verdicts."""

import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from ops.dev.servers import KafkaServer, RedisServer
from ops.drills.publisher import Publisher
from ops.drills.verdict_counter import VerdictCounter
from ops.drills.worker_process import WorkerProcess

PATIENCE_SECONDS = 120.0
STABLE = "Stable"


class DrillError(Exception):
    """A drill could not be carried out; nothing is said about delivery."""


class Bench:
    """One drill's topics, stream and workers. Use it as a context manager: it starts the stream and ends everything."""

    def __init__(
        self,
        kafka: KafkaServer,
        redis: RedisServer,
        folder: Path,
        *,
        partitions: int = 4,
        rate: float = 40.0,
        kafka_settings: Mapping[str, Any] | None = None,
        intake_settings: Mapping[str, Any] | None = None,
    ) -> None:
        """`folder` must exist and be this drill's own."""
        self.kafka = kafka
        self.redis = redis
        self.partitions = partitions
        self.recoveries: list[float] = []
        self.worker_log = folder / "worker.log"
        self._workers: list[WorkerProcess] = []
        self.group = group = f"drill-{secrets.token_hex(6)}"
        self.topics = {
            name: f"{group}.{name}"
            for name in ("images", "verdicts", "review", "dead", "retry_1", "retry_2", "retry_3")
        }
        # librdkafka's admin client ends the process when a broker dies under describe_consumer_groups (its issue 4605).
        self._admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        self._admin.create_topics(
            {
                topic: {"num_partitions": partitions if name == "images" else 4, "replication_factor": 1}
                for name, topic in self.topics.items()
            },
            wait_for_metadata=True,
        )
        self.images = folder / "images"
        """The folder that the workers may read."""
        self.images.mkdir()
        self.config = folder / "sluice.yaml"
        settings = {
            "kafka": {
                "bootstrap_servers": kafka.bootstrap_servers,
                "group_id": group,
                "topics": self.topics,
                "session_timeout_seconds": 6,
            }
            | dict(kafka_settings or {}),
            "intake": dict(intake_settings or {}),
            "redis": {"url": redis.url},
            "files": {"roots": [str(self.images)]},
            "telemetry": {"log_format": "json"},
        }
        self.config.write_text(yaml.safe_dump(settings))
        self.publisher = Publisher(
            kafka.bootstrap_servers, self.topics["images"], self.images, partitions=partitions, rate=rate
        )
        self.counter = VerdictCounter(kafka.bootstrap_servers, self.topics)

    def __enter__(self) -> "Bench":
        self.counter.start()
        self.publisher.start()
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self.publisher.stop()
        self.counter.stop()
        self._admin.close()

    def start_worker(self, **kafka_settings: str) -> WorkerProcess:
        """Starts a worker, and returns at once."""
        names = {f"SLUICE_KAFKA__{name.upper()}": value for name, value in kafka_settings.items()}
        worker = WorkerProcess(self.config, self.worker_log, names)
        self._workers.append(worker)
        return worker

    def start_working_worker(self, **kafka_settings: str) -> WorkerProcess:
        """Starts a worker, and returns when the next verdict has come."""
        worker = self.start_worker(**kafka_settings)
        self.wait_for_a_verdict()
        return worker

    def ensure_workers(self, count: int) -> list[WorkerProcess]:
        """Starts workers, or tells the latest to stop, until `count` run; returns them when all are in the group."""
        running = [worker for worker in self._workers if worker.running]
        for worker in running[count:]:
            worker.stop()
        running = running[:count]
        running += [self.start_worker() for _ in range(count - len(running))]
        if count:
            self.wait_for_members(count)
            self.wait_for_a_verdict()
        return running

    def wait_for_members(self, count: int) -> None:
        """Waits until the group is stable with so many members."""
        self._wait(
            lambda: time.monotonic() if self._group() == (STABLE, count) else None,
            f"the group has not become stable with {count} members",
        )

    def wait_for_rebalance(self) -> None:
        """Waits until a member is joining the group, or has joined."""
        _, before = self._group()

        def joining() -> float | None:
            state, members = self._group()
            return time.monotonic() if state != STABLE or members > before else None

        self._wait(joining, "nobody has joined the group")

    def _group(self) -> tuple[str, int]:
        """The group's state, and how many members it has."""
        try:
            described = self._admin.describe_groups([self.group])[self.group]
        except KafkaError:  # the broker is starting, or has no coordinator for the group yet
            return "unknown", 0
        return described["group_state"], len(described["members"])

    def wait_for_a_verdict(self, after: float | None = None) -> float:
        """Waits for the verdict of an event that was published after `after` (by default: now); returns when it was
        seen. An older event may be in a transaction that a killed worker's producer is just committing."""
        moment = time.monotonic() if after is None else after

        def found() -> float | None:
            return self.counter.first_of({p for p, at in dict(self.publisher.published).items() if at > moment})

        return self._wait(found, "no further verdict came")

    def recover(self) -> None:
        """Called at the end of a fault: waits until all that was published before has a verdict, and notes how long
        that took."""
        ended = time.monotonic()

        def recovered() -> float | None:
            return None if self.counter.missing(self.publisher.published, ended) else time.monotonic()

        self.recoveries.append(self._wait(recovered, "events lack their verdicts") - ended)

    def finish(self) -> None:
        """Ends the stream, and waits until each event has a verdict and repeats had time to show.

        Raises DrillError when the stream had ended by itself.
        """
        self.publisher.stop()
        if self.publisher.failure is not None:
            raise DrillError(f"the stream of events has stopped: {self.publisher.failure}")
        with contextlib.suppress(DrillError):
            self._wait(
                lambda: None if self.counter.missing(self.publisher.published) else time.monotonic(),
                "events lack their verdicts",
            )
        seen, quiet_since = self.counter.seen(), time.monotonic()
        while time.monotonic() - quiet_since < 1.5:
            time.sleep(0.1)
            if self.counter.seen() != seen:
                seen, quiet_since = self.counter.seen(), time.monotonic()

    def add_partition(self) -> None:
        """Adds a partition to the image topic and publishes to it at once."""
        self.partitions += 1
        self._admin.create_partitions({self.topics["images"]: self.partitions})
        self.publisher.use_partitions(self.partitions)

    def wait_for_an_event_in(self, partition: int) -> None:
        """Waits until an event was published to the partition."""

        def published() -> float | None:
            found = any(place.partition == partition for place in dict(self.publisher.published))
            return time.monotonic() if found else None

        self._wait(published, f"nothing was published to partition {partition}")

    def _wait(self, found: Callable[[], float | None], complaint: str) -> float:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if (moment := found()) is not None:
                return moment
            if self.publisher.failure is not None:
                raise DrillError(f"the stream of events has stopped: {self.publisher.failure}")
            time.sleep(0.05)
        end = self.worker_log.read_text(errors="replace").splitlines()[-20:] if self.worker_log.exists() else []
        raise DrillError(
            "\n".join([f"{complaint} within {PATIENCE_SECONDS:.0f} s; the end of {self.worker_log}:", *end])
        )
