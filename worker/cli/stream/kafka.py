"""The stream on Kafka."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

from worker.intake.kafka_connection import connection_options
from worker.intake.log import LogError, Partition, Record
from worker.settings import KafkaSettings

BLOCK_SECONDS = 10
FLUSH_SECONDS = 60.0
UNACKED = 10_000
"""Events that may wait for their ack at once."""


class KafkaStream:
    """Producer and consumer are made when first needed. Records are read without deserializers, read_committed."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._producer: Any = None
        self._unacked: deque[Any] = deque()

    def publish(self, key: bytes, value: bytes) -> None:
        topic = self._settings.topics.images
        with self._explained():
            if self._producer is None:
                self._producer = KafkaProducer(
                    **connection_options(self._settings),
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=20,
                    batch_size=256 * 1024,
                    max_request_size=self._settings.max_message_bytes,
                    max_block_ms=BLOCK_SECONDS * 1000,
                    allow_auto_create_topics=False,
                    metrics_enabled=False,
                )
                self._require(topic)
            self._unacked.append(self._producer.send(topic, key=key, value=value))
            while len(self._unacked) > UNACKED:
                self._unacked.popleft().get(timeout=FLUSH_SECONDS)

    def flush(self) -> None:
        if self._producer is None:
            return
        with self._explained():
            self._producer.flush(timeout=FLUSH_SECONDS)
            while self._unacked:
                self._unacked.popleft().get(timeout=FLUSH_SECONDS)

    def read(self, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Record]:
        with self._explained():
            consumer = KafkaConsumer(
                **connection_options(self._settings),
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                max_partition_fetch_bytes=self._settings.max_message_bytes,
                fetch_max_wait_ms=100,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            try:
                yield from self._records(consumer, topic, from_beginning, follow)
            finally:
                consumer.close(autocommit=False)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=5)

    def _records(self, consumer: Any, topic: str, from_beginning: bool, follow: bool) -> Iterator[Record]:
        numbers = consumer.partitions_for_topic(topic)
        if not numbers:
            raise self._no_topic(topic)
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        consumer.assign(partitions)
        starts = consumer.beginning_offsets(partitions)
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, (starts if from_beginning else ends)[partition])
        while follow or any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, batch in consumer.poll(timeout_ms=200).items():
                for record in batch:
                    if follow or record.offset < ends[partition]:
                        yield Record(
                            Partition(topic, partition.partition),
                            record.offset,
                            record.value,
                            record.key,
                            tuple(record.headers or ()),
                            record.timestamp,
                        )

    def _require(self, topic: str) -> None:
        try:
            self._producer.partitions_for(topic)
        except KafkaTimeoutError as error:  # the producer waits for the topic to appear
            raise self._no_topic(topic) from error

    def _no_topic(self, topic: str) -> LogError:
        return LogError(
            f"topic {topic} does not exist at {self._settings.bootstrap_servers}; make it with `sluice topics create`"
        )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except KafkaError as error:
            raise LogError(
                f"Kafka at {self._settings.bootstrap_servers}: {type(error).__name__}: {error}; "
                "check kafka.bootstrap_servers and that the broker runs"
            ) from error
