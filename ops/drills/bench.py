"""What a drill on Kafka works on: topics of its own on a real broker, a stream of events, workers, and the count of
verdicts."""

import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from ops.dev.servers import KafkaServer, RedisServer
from ops.dev.worker_topics import WORKER_TOPICS
from ops.drills.object_store import DrillObjectStore
from ops.drills.publisher import KafkaPublisher
from ops.drills.stream_bench import DrillError as DrillError
from ops.drills.stream_bench import StreamBench
from ops.drills.verdict_counter import KafkaVerdictCounter
from ops.drills.worker_process import WorkerProcess

STABLE = "Stable"


class Bench(StreamBench):
    """One drill's topics, stream and workers. Use it as a context manager: it starts the stream and ends everything."""

    publisher: KafkaPublisher

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
        store: DrillObjectStore | None = None,
    ) -> None:
        """`folder` must exist and be this drill's own. `store` is where the workers read objects of S3."""
        super().__init__(folder)
        self.kafka = kafka
        self.redis = redis
        self.store = store
        self.partitions = partitions
        self.group = group = f"drill-{secrets.token_hex(6)}"
        self.topics = {name: f"{group}.{name}" for name in WORKER_TOPICS}
        # librdkafka's admin client ends the process when a broker dies under describe_consumer_groups (its issue 4605).
        self._admin = KafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
        self._admin.create_topics(
            {
                topic: {"num_partitions": partitions if name == "images" else 4, "replication_factor": 1}
                for name, topic in self.topics.items()
            },
            wait_for_metadata=True,
        )
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
        } | ({} if store is None else {"s3": store.settings()})
        self.config.write_text(yaml.safe_dump(settings))
        self.publisher = KafkaPublisher(
            kafka.bootstrap_servers, self.topics["images"], self.images, partitions=partitions, rate=rate
        )
        self.counter = KafkaVerdictCounter(kafka.bootstrap_servers, self.topics)

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._admin.close()

    def start_worker(
        self, environment: Mapping[str, str] | None = None, *, instance_id: str | None = None
    ) -> WorkerProcess:
        """Starts a worker, and returns at once. `instance_id` makes it a static member of the group."""
        variables = {} if instance_id is None else {"SLUICE_KAFKA__GROUP_INSTANCE_ID": instance_id}
        variables |= {} if self.store is None else self.store.credentials()
        worker = WorkerProcess(["--config", str(self.config)], self.worker_log, variables | dict(environment or {}))
        self._workers.append(worker)
        return worker

    def start_working_worker(self, *, instance_id: str | None = None) -> WorkerProcess:
        """Starts a worker, and returns when the next verdict has come."""
        worker = self.start_worker(instance_id=instance_id)
        self.wait_for_a_verdict()
        return worker

    def records_in(self, name: str) -> int:
        """Offsets in the topic that the settings call `name`: its records and Kafka's transaction markers."""
        partitions = [TopicPartition(self.topics[name], number) for number in range(4)]
        ends = self._admin.list_partition_offsets(dict.fromkeys(partitions, OffsetSpec.LATEST))
        return sum(end.offset for end in ends.values())

    def wait_until_at_work(self, count: int) -> None:
        self.wait_for_members(count)

    def wait_for_members(self, count: int) -> None:
        """Waits until the group is stable with so many members."""
        self.wait(
            lambda: time.monotonic() if self._group() == (STABLE, count) else None,
            f"the group has not become stable with {count} members",
        )

    def wait_for_rebalance(self) -> None:
        """Waits until a member is joining the group, or has joined."""
        _, before = self._group()

        def joining() -> float | None:
            state, members = self._group()
            return time.monotonic() if state != STABLE or members > before else None

        self.wait(joining, "nobody has joined the group")

    def _group(self) -> tuple[str, int]:
        """The group's state, and how many members it has."""
        try:
            described = self._admin.describe_groups([self.group])[self.group]
        except KafkaError:  # the broker is starting, or has no coordinator for the group yet
            return "unknown", 0
        return described["group_state"], len(described["members"])

    def add_partition(self) -> None:
        """Adds a partition to the image topic and publishes to it at once."""
        self.partitions += 1
        self._admin.create_partitions({self.topics["images"]: self.partitions})
        self.publisher.use_partitions(self.partitions)

    def wait_for_an_event_in(self, partition: int) -> None:
        """Waits until an event was published to the partition."""
        self.wait(
            lambda: time.monotonic() if self.published_in(partition) else None,
            f"nothing was published to partition {partition}",
        )
