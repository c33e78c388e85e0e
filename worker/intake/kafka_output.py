"""Commits outputs and consumer offsets to Kafka."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.intake.producer_process import ProducerProcess
from worker.settings import KafkaSettings

ANSWER_SECONDS = 30.0


class KafkaOutput:
    """Commits for one member of the consumer group. Call `commit` from one thread only.

    With `delivery: exactly_once` outputs and offsets are one transaction. With `at_least_once` outputs are acknowledged
    first and offsets committed after, so a crash between the two repeats outputs.

    `member_id` is this member's id when partitions were last assigned to it. After the group has removed the member,
    kafka-python rejoins by itself with a new id; outputs that were prepared before must not be committed with that id.
    """

    member_id: str | None = None

    def __init__(
        self, settings: KafkaSettings, producer: ProducerProcess, consumer: Any, note: Callable[[Partition], str]
    ) -> None:
        """`note` says what is committed beside a partition's offset; it is called from the committing thread."""
        self._consumer = consumer
        self._note = note
        self._transactional = settings.delivery == "exactly_once"
        self._producer = producer

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """See Log.commit."""
        group = self._consumer.group_metadata()
        if group.generation_id < 0 or group.member_id != self.member_id:
            # Without member id and generation, the broker would accept transactional offsets from anybody.
            raise Fenced("the group has removed this member; other members own its partitions now")
        positions = {partition: (offset, self._note(partition)) for partition, offset in offsets.items()}
        if self._transactional:
            self._producer.send_in_transaction(outputs, positions, group)
        else:
            self._producer.send(outputs)
            self._commit_offsets(positions)

    def close(self) -> None:
        self._producer.close()

    def _commit_offsets(self, positions: Mapping[Partition, tuple[int, str]]) -> None:
        offsets = {
            TopicPartition(*partition): OffsetAndMetadata(offset, note, -1)
            for partition, (offset, note) in positions.items()
        }
        try:
            commit = self._consumer.commit_async(offsets)
            deadline = time.monotonic() + ANSWER_SECONDS
            while not commit.is_done and time.monotonic() < deadline:
                time.sleep(0.002)
        except KafkaError as error:
            raise CommitFailed(str(error)) from error
        if not commit.succeeded():
            raise CommitFailed(f"offsets were not committed: {commit.exception or 'no answer'}")
