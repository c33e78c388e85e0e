"""The desk's topics on Kafka."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from kafka import KafkaProducer, TopicPartition
from kafka.errors import PolicyViolationError, TopicAuthorizationFailedError

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_probe import admin_client
from worker.intake.kafka_reading import explained, open_reader, partitions_of, record_of
from worker.intake.log import LogError, Output, Partition, Record
from worker.review.topics import TopicBatch
from worker.review.waiting import WaitedTooLong, held
from worker.settings import KafkaSettings

ACK_SECONDS: Final = 10.0
"""A decision that is not confirmed within this time is reported as not recorded."""
RECORD_SECONDS: Final = 5.0
POSITION_MS: Final = 5000
"""Longest wait for the broker to say where a partition begins or ends."""
READ_AT_ONCE: Final = 5000
GATHER_MS: Final = 2
"""So long a record waits for others: a decision and its entry in the audit are one request then, not two."""


class KafkaTopics:
    """An idempotent producer that many threads share, and consumers without a group, made when first needed."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._reader: Any = None
        self._finder: Any = None
        self._finding = threading.Lock()
        with explained(self._settings):
            self._producer = KafkaProducer(
                **connection_options(settings),
                acks="all",
                enable_idempotence=True,
                linger_ms=GATHER_MS,
                request_timeout_ms=int(ACK_SECONDS * 500),
                delivery_timeout_ms=int(ACK_SECONDS * 1000),
                max_block_ms=int(ACK_SECONDS * 1000),
                max_request_size=settings.max_message_bytes,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        with explained(self._settings):
            sent = [
                self._producer.send(output.topic, key=output.key, value=output.value, headers=list(output.headers))
                for output in outputs
            ]
            found = [future.get(timeout=ACK_SECONDS) for future in sent]
        return [(Partition(placed.topic, placed.partition), placed.offset) for placed in found]

    def ends(self, topic: str) -> dict[Partition, int]:
        with explained(self._settings):
            self._reader = self._reader or self._consumer()
            partitions = partitions_of(self._reader, topic, self._settings)
            ends = self._reader.end_offsets(partitions, timeout_ms=POSITION_MS)
        return {Partition(topic, partition.partition): ends[partition] for partition in partitions}

    def starts(self, topic: str) -> dict[Partition, int]:
        with explained(self._settings):
            self._reader = self._reader or self._consumer()
            partitions = partitions_of(self._reader, topic, self._settings)
            starts = self._reader.beginning_offsets(partitions, timeout_ms=POSITION_MS)
        return {Partition(topic, partition.partition): starts[partition] for partition in partitions}

    def trim(self, starts: Mapping[Partition, int]) -> None:
        wanted = {TopicPartition(p.topic, p.number): offset for p, offset in starts.items()}
        with explained(self._settings), admin_client(self._settings) as admin:
            try:
                admin.delete_records(wanted)
            except (PolicyViolationError, TopicAuthorizationFailedError) as error:
                names = ", ".join(sorted({p.topic for p in starts}))
                raise LogError(
                    f"Kafka refuses to delete old records of {names} ({type(error).__name__}); the topics need "
                    "cleanup.policy=delete with retention.ms=-1, and the desk the operation Delete on them"
                ) from error

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> TopicBatch:
        with explained(self._settings):
            self._reader = self._reader or self._consumer()
            wanted = {TopicPartition(p.topic, p.number): offset for p, offset in positions.items()}
            if self._reader.assignment() != set(wanted):
                self._reader.assign(list(wanted))
                for partition, offset in wanted.items():
                    self._reader.seek(partition, offset)
            else:
                for partition, offset in wanted.items():
                    if self._reader.position(partition, timeout_ms=POSITION_MS) != offset:
                        self._reader.seek(partition, offset)
            batches = self._reader.poll(timeout_ms=int(wait_seconds * 1000), max_records=READ_AT_ONCE)
            after = {Partition(p.topic, p.partition): self._reader.position(p, timeout_ms=POSITION_MS) for p in wanted}
        records = [record_of(record) for batch in batches.values() for record in batch]
        return TopicBatch(records, {p: offset if after[p] is None else after[p] for p, offset in positions.items()})

    def record(self, partition: Partition, offset: int) -> Record | None:
        where = TopicPartition(partition.topic, partition.number)
        with self._exclusive_finder(), explained(self._settings):
            self._finder = self._finder or self._consumer()
            self._finder.assign([where])
            self._finder.seek(where, offset)
            batch = self._finder.poll(timeout_ms=int(RECORD_SECONDS * 1000), max_records=1).get(where, [])
        return next((record_of(record) for record in batch if record.offset == offset), None)

    @contextmanager
    def _exclusive_finder(self) -> Iterator[None]:
        try:
            with held(self._finding, 2 * RECORD_SECONDS, "reading a single record"):
                yield
        except WaitedTooLong as error:
            raise LogError(str(error)) from None

    def close(self) -> None:
        self._producer.close(timeout=5)
        for consumer in (self._reader, self._finder):
            if consumer is not None:
                consumer.close(autocommit=False, timeout_ms=POSITION_MS)

    def _consumer(self) -> Any:
        # where retention has removed what stood at a position
        return open_reader(self._settings, auto_offset_reset="earliest")
