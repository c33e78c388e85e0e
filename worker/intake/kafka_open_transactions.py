"""Names the transaction of another producer that keeps a partition from being read."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError, Partition
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

STILL_SECONDS = 10.0
"""A partition that is behind and has not moved for so long is looked into, and again after the same time."""
OFFSETS_MS = 5_000


class OpenTransactions:
    """A consumer of committed records stops before the first record of a transaction that is still open. kafka-python
    shows such a partition as one with records to read. Belongs to the reader's thread, but for `notes` and `held`.

    `describe` says whose transaction it is, by the partition.
    """

    def __init__(
        self,
        consumer: Any,
        describe: Callable[[TopicPartition], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._describe = describe
        self._clock = clock
        self._seen: dict[TopicPartition, tuple[int, float]] = {}
        self._notes: dict[TopicPartition, str] = {}
        self._held: frozenset[Partition] = frozenset()

    @property
    def held(self) -> frozenset[Partition]:
        """Partitions of which nothing can be read for the moment."""
        return self._held

    def notes(self) -> tuple[str, ...]:
        """What holds each of them, for people. From any thread."""
        return tuple(self._notes.copy().values())

    def observe(self, positions: Mapping[TopicPartition, int]) -> None:
        """`positions`: the next offset to read of each partition that is behind and not paused."""
        now = self._clock()
        self._seen = {
            partition: self._seen[partition] if self._seen.get(partition, (-1, 0.0))[0] == position else (position, now)
            for partition, position in positions.items()
        }
        moved = [partition for partition in self._notes if self._seen.get(partition, (0, now))[1] == now]
        for partition in moved:
            del self._notes[partition]
        still = [partition for partition, (_, since) in self._seen.items() if now - since >= STILL_SECONDS]
        if still:
            self._look_into(still, now)
        self._held = frozenset(Partition(*partition) for partition in self._notes)

    def _look_into(self, partitions: list[TopicPartition], now: float) -> None:
        # to a consumer of committed records, the end is the first record of the oldest open transaction
        try:
            readable = self._consumer.end_offsets(partitions, timeout_ms=OFFSETS_MS)
        except KafkaError as error:
            log.info("end_offsets_unknown", error=str(error))
            readable = {}
        for partition in partitions:
            position = self._seen[partition][0]
            end = readable.get(partition)
            if end is not None and end > position:
                self._notes.pop(partition, None)
            elif end is not None and partition not in self._notes:
                text = self._describe(partition)
                self._notes[partition] = (
                    f"partition {partition.topic}/{partition.partition} cannot be read beyond offset {position}: "
                    f"{text}. A restart of the worker does not help; end that transaction, or wait for its timeout"
                )
                log.warning("partition_held_by_transaction", note=self._notes[partition])
            self._seen[partition] = (position, now - 0.5 * STILL_SECONDS)


def describe_transactions(settings: KafkaSettings) -> Callable[[TopicPartition], str]:
    """Asks Kafka for the open transactions of a partition, as far as it tells us."""

    def describe(partition: TopicPartition) -> str:
        try:
            with admin_client(settings) as admin:
                producers = [
                    producer
                    for producer in admin.describe_producers([partition])[partition].active_producers
                    if producer.current_transaction_start_offset >= 0
                ]
                if not producers:
                    return "a transaction of another producer is open"
                first = min(producers, key=lambda producer: producer.current_transaction_start_offset)
                names = [
                    listing.transactional_id
                    for listings in admin.list_transactions(producer_id_filters=[first.producer_id]).values()
                    for listing in listings
                ]
        except (KafkaError, LogError) as error:
            return f"a transaction of another producer is open (Kafka does not tell whose: {type(error).__name__})"
        name = f"transactional id {names[0]}" if names else f"producer id {first.producer_id}"
        return f"the producer with {name} has a transaction open since offset {first.current_transaction_start_offset}"

    return describe
