"""The stream on Kafka."""

from collections import deque
from collections.abc import Iterator
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaTimeoutError

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_reading import explained, no_topic, open_reader, partitions_of, record_of
from worker.intake.log import Record
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
        with explained(self._settings):
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
        with explained(self._settings):
            self._producer.flush(timeout=FLUSH_SECONDS)
            while self._unacked:
                self._unacked.popleft().get(timeout=FLUSH_SECONDS)

    def read(self, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Record]:
        with explained(self._settings):
            consumer = open_reader(self._settings)
            try:
                yield from self._records(consumer, topic, from_beginning, follow)
            finally:
                consumer.close(autocommit=False)

    def close(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=5)

    def _records(self, consumer: Any, topic: str, from_beginning: bool, follow: bool) -> Iterator[Record]:
        partitions = partitions_of(consumer, topic, self._settings)
        consumer.assign(partitions)
        starts = consumer.beginning_offsets(partitions)
        ends = consumer.end_offsets(partitions)
        for partition in partitions:
            consumer.seek(partition, (starts if from_beginning else ends)[partition])
        while follow or any(consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, batch in consumer.poll(timeout_ms=200).items():
                for record in batch:
                    if follow or record.offset < ends[partition]:
                        yield record_of(record)

    def _require(self, topic: str) -> None:
        try:
            self._producer.partitions_for(topic)
        except KafkaTimeoutError as error:  # the producer waits for the topic to appear
            raise no_topic(topic, self._settings) from error
