"""Where a consumer of librdkafka is in its partitions, by kafka-python's names: GapKeeper and OpenTransactions then
serve both clients."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException
from confluent_kafka import TopicPartition as Position
from kafka import TopicPartition

from worker.intake.librdkafka_faults import as_kafka_error
from worker.intake.librdkafka_topic_ids import TopicIds
from worker.intake.log import Partition, Record


class Positions:
    """librdkafka tells the position behind the last record, but not behind the transaction markers after it; so the
    positions are kept here. For the reader's thread."""

    def __init__(self, consumer: Consumer, topic_ids: TopicIds) -> None:
        self._consumer = consumer
        self._topic_ids = topic_ids
        self._watch: Callable[[Mapping[TopicPartition, Position]], None] = lambda _offsets: None
        self._next: dict[Partition, int] = {}

    def read(self, records: Sequence[Record]) -> None:
        """These records came, in the order of their partitions."""
        for record in records:
            self._next[record.partition] = record.offset + 1

    def reached(self, partition: Partition, end: int) -> None:
        """There is no more to read before offset `end`."""
        self._next[partition] = end

    def forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._next.pop(partition, None)

    def committed(self, partitions: Iterable[TopicPartition], timeout_seconds: float) -> dict[TopicPartition, Position]:
        """Offset and note that the group has committed, where there are any. Raises kafka-python's KafkaError."""
        try:
            found = self._consumer.committed([Position(*partition) for partition in partitions], timeout_seconds)
        except KafkaException as error:
            raise as_kafka_error(error) from error
        if failed := next((position.error for position in found if position.error is not None), None):
            raise as_kafka_error(failed)
        return {TopicPartition(each.topic, each.partition): each for each in found if each.offset >= 0}

    def compare(self, partitions: Iterable[TopicPartition], timeout_seconds: float) -> None:
        """Shows whoever watches what is committed for these; they are paused. Raises kafka-python's KafkaError."""
        self._watch(self.committed(partitions, timeout_seconds))

    def highwater(self, partition: TopicPartition) -> int | None:
        """Where the partition ended when records were last fetched from it."""
        _, high = self._consumer.get_watermark_offsets(Position(*partition), cached=True)
        return high if high >= 0 else None

    # -- as kafka-python's consumer has them -------------------------------------------------------------------------

    def watch_committed(self, watch: Callable[[Mapping[TopicPartition, Position]], None]) -> None:
        self._watch = watch

    def topic_id(self, topic: str) -> str | None:
        return self._topic_ids.of(topic)

    def pause(self, *partitions: TopicPartition) -> None:
        """They are paused while what is committed for them is compared."""

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition(position.topic, position.partition) for position in self._consumer.assignment()}

    def position_if_known(self, partition: TopicPartition) -> int | None:
        return self._next.get(Partition(*partition))

    def beginning_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        """Raises kafka-python's KafkaError, as do the methods below."""
        return {partition: self._watermarks(partition, timeout_ms)[0] for partition in partitions}

    def end_offsets(self, partitions: Iterable[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        """Of records that are committed: the first one of an open transaction is the end."""
        return {partition: self._watermarks(partition, timeout_ms)[1] for partition in partitions}

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        for partition in partitions:
            self.seek(partition, OFFSET_BEGINNING)

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self.forget([Partition(*partition)])
        try:
            # `seek` has no effect on a partition whose position was refused
            self._consumer.incremental_unassign([Position(*partition)])
            self._consumer.incremental_assign([Position(partition.topic, partition.partition, offset)])
        except KafkaException as error:
            raise as_kafka_error(error) from error

    def _watermarks(self, partition: TopicPartition, timeout_ms: int) -> tuple[int, int]:
        try:
            low, high = self._consumer.get_watermark_offsets(Position(*partition), timeout_ms / 1000)
        except KafkaException as error:
            raise as_kafka_error(error) from error
        return low, high
