"""The producing side of Kafka: outputs and offsets, together."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, ProducerFencedError

from worker.intake.kafka_connection import connection_options
from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 30.0


class KafkaOutput:
    """Owns the producer. `commit` belongs to one thread.

    With `delivery: exactly_once` outputs and offsets are one transaction. With `at_least_once` outputs are acked first
    and offsets committed after, so a crash between the two repeats outputs.

    `member_id` is the group's name for this member as the loop last heard it. kafka-python joins the group again by
    itself, under a new name, when this member was put out; what was prepared before must not pass under that name.
    """

    member_id: str | None = None

    def __init__(self, settings: KafkaSettings, consumer: Any) -> None:
        self._consumer = consumer
        self._transactional = settings.delivery == "exactly_once"
        options: dict[str, Any] = {
            **connection_options(settings),
            "acks": "all",
            "linger_ms": 5,
            "batch_size": 256 * 1024,
            "max_request_size": settings.max_message_bytes,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        if self._transactional:
            options["transactional_id"] = settings.transactional_id or f"{settings.group_id}-{uuid.uuid4().hex}"
            options["transaction_timeout_ms"] = int(settings.transaction_timeout_seconds * 1000)
        self._producer = KafkaProducer(**options)
        if self._transactional:
            self._producer.init_transactions()

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """See Log.commit."""
        positions = {
            TopicPartition(partition.topic, partition.number): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        group = self._consumer.group_metadata()
        if group.member_id != self.member_id:
            raise Fenced("this member was put out of the group; its partitions are others' now")
        if self._transactional:
            self._commit_transaction(outputs, positions, group)
        else:
            self._commit_after_acks(outputs, positions)

    def close(self) -> None:
        try:
            self._producer.close(timeout=5)
        except KafkaError as error:
            log.warning("kafka_close_failed", error=_describe(error))

    def _commit_transaction(
        self, outputs: Sequence[Output], positions: Mapping[TopicPartition, OffsetAndMetadata], group: Any
    ) -> None:
        try:
            # 1. Everything that can fail without consequence comes before the commit marker is asked for. The group's
            #    generation goes along, so that a member which was replaced cannot commit (KIP-447).
            self._producer.begin_transaction()
            self._send_all(outputs)
            self._producer.send_offsets_to_transaction(positions, group)
        except ProducerFencedError as error:
            raise Fenced(f"another worker uses this transactional id: {error}") from error
        except (KafkaError, CommitFailed) as error:
            self._abort()
            raise CommitFailed(_describe(error)) from error
        try:
            # 2. From here the outcome is the broker's; if we do not hear of it, only the committed offsets tell.
            self._producer.commit_transaction()
        except KafkaError as error:
            raise Fenced(f"the outcome of a commit is unknown: {_describe(error)}") from error

    def _commit_after_acks(
        self, outputs: Sequence[Output], positions: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        try:
            self._send_all(outputs)
            commit = self._consumer.commit_async(positions)
            deadline = time.monotonic() + FLUSH_SECONDS
            while not commit.is_done and time.monotonic() < deadline:
                time.sleep(0.002)
        except KafkaError as error:
            raise CommitFailed(_describe(error)) from error
        if not commit.succeeded():
            raise CommitFailed(f"offsets were not committed: {commit.exception or 'no answer'}")

    def _send_all(self, outputs: Sequence[Output]) -> None:
        futures = [
            self._producer.send(output.topic, value=output.value, key=output.key, headers=list(output.headers))
            for output in outputs
        ]
        self._producer.flush(timeout=FLUSH_SECONDS)
        # A batch that expired inside a transaction does not fail the commit by itself: look at each.
        for future in futures:
            if not future.succeeded():
                raise CommitFailed(f"an output was not acked: {future.exception or 'no answer'}")

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction()
        except KafkaError as error:
            raise Fenced(f"a transaction could not be aborted: {_describe(error)}") from error


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, CommitFailed) else f"{type(error).__name__}: {error}"
