"""The producing side of Kafka: outputs and offsets, together."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.intake.producer_process import ProducerProcess
from worker.settings import KafkaSettings

ANSWER_SECONDS = 30.0


class KafkaOutput:
    """Commits what a member of the group has done. `commit` belongs to one thread.

    With `delivery: exactly_once` outputs and offsets are one transaction. With `at_least_once` outputs are acked first
    and offsets committed after, so a crash between the two repeats outputs.

    `member_id` is the group's name for this member as the loop last heard it. kafka-python joins the group again by
    itself, under a new name, when this member was put out; what was prepared before must not pass under that name.
    """

    member_id: str | None = None

    def __init__(self, settings: KafkaSettings, producer: ProducerProcess, consumer: Any) -> None:
        self._consumer = consumer
        self._transactional = settings.delivery == "exactly_once"
        self._producer = producer

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """See Log.commit."""
        group = self._consumer.group_metadata()
        if group.generation_id < 0 or group.member_id != self.member_id:
            # Without a generation, the broker would take offsets in a transaction from anybody.
            raise Fenced("this member was put out of the group; its partitions are others' now")
        if self._transactional:
            self._producer.send_in_transaction(outputs, offsets, group)
        else:
            self._producer.send(outputs)
            self._commit_offsets(offsets)

    def close(self) -> None:
        self._producer.close()

    def _commit_offsets(self, offsets: Mapping[Partition, int]) -> None:
        positions = {
            TopicPartition(*partition): OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()
        }
        try:
            commit = self._consumer.commit_async(positions)
            deadline = time.monotonic() + ANSWER_SECONDS
            while not commit.is_done and time.monotonic() < deadline:
                time.sleep(0.002)
        except KafkaError as error:
            raise CommitFailed(str(error)) from error
        if not commit.succeeded():
            raise CommitFailed(f"offsets were not committed: {commit.exception or 'no answer'}")
