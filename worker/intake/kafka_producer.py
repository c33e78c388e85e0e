"""Writes to Kafka: outputs alone, or outputs and a group's offsets in one transaction."""

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_python_fixes import FixedProducer
from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

FLUSH_SECONDS = 30.0
FLUSH_STEP_SECONDS = 1.0
_FENCED = "another worker uses this transactional id, or kafka.transaction_timeout_seconds are over: {}"


class Producer:
    """Owns a kafka-python producer. Belongs to one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        options: dict[str, Any] = {
            **connection_options(settings),
            "acks": "all",
            "linger_ms": 5,
            "batch_size": 256 * 1024,
            "max_request_size": settings.max_message_bytes,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        transactional = settings.delivery == "exactly_once"
        if transactional:
            name = settings.group_instance_id or uuid.uuid4().hex
            options["transactional_id"] = settings.transactional_id or f"{settings.group_id}-{name}"
            options["transaction_timeout_ms"] = int(settings.transaction_timeout_seconds * 1000)
        self._options = options
        self._transactional = transactional
        self._producer = self._open()

    def _open(self) -> FixedProducer:
        """A producer; an earlier one of the same name can do nothing more, and what it left open is aborted."""
        producer = FixedProducer(**self._options)
        try:
            if self._transactional:
                producer.init_transactions()
        except BaseException:
            producer.discard()
            raise
        return producer

    def send(self, outputs: Sequence[Output]) -> None:
        """Returns when all are acked. Raises CommitFailed."""
        try:
            self._send_all(outputs)
        except (KafkaError, CommitFailed) as error:
            # An idempotent producer refuses everything after an output that the broker refused for good.
            self._replace(str(error))
            raise CommitFailed(str(error)) from error

    def send_in_transaction(
        self, outputs: Sequence[Output], offsets: Mapping[Partition, int], group: ConsumerGroupMetadata
    ) -> None:
        """Returns when outputs and offsets are committed.

        Raises CommitFailed when nothing happened, Fenced when another worker took over or the outcome is unknown.
        """
        positions = {
            TopicPartition(partition.topic, partition.number): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        try:
            # 1. Everything that can fail without consequence comes before the commit marker is asked for. The group's
            #    generation goes along, so that a member which was replaced cannot commit (KIP-447).
            self._producer.begin_transaction()
            self._send_all(outputs)
            self._producer.send_offsets_to_transaction(positions, group)
        except ProducerFencedError as error:
            raise Fenced(_FENCED.format(error)) from error
        except (KafkaError, CommitFailed) as error:
            self._abort()
            raise CommitFailed(str(error)) from error
        try:
            # 2. From here the outcome is the broker's; if we do not hear of it, only the committed offsets tell.
            self._producer.commit_transaction()
        except KafkaError as error:
            raise Fenced(f"the outcome of a commit is unknown: {error}") from error

    def close(self) -> None:
        """Ends the producer; nothing is under way, as each call returns when all is sent or given up."""
        self._producer.discard()

    def _send_all(self, outputs: Sequence[Output]) -> None:
        futures = [
            self._producer.send(output.topic, value=output.value, key=output.key, headers=list(output.headers))
            for output in outputs
        ]
        self._flush(futures)
        # A batch that expired inside a transaction does not fail the commit by itself: look at each.
        for future in futures:
            if not future.succeeded():
                raise CommitFailed(f"an output was not acked: {future.exception or 'no answer'}")

    def _flush(self, futures: Sequence[Any]) -> None:
        """Waits until all are answered, or one has failed: the broker may have ended the transaction, and kafka-python
        never sends the others then."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while True:
            try:
                self._producer.flush(timeout=FLUSH_STEP_SECONDS)
            except KafkaTimeoutError:
                if time.monotonic() >= deadline or any(future.failed() for future in futures):
                    return
            else:
                return

    def _abort(self) -> None:
        try:
            self._producer.abort_transaction()
        except ProducerFencedError as error:
            raise Fenced(_FENCED.format(error)) from error
        except KafkaError as error:
            # The broker has ended the transaction itself, or cannot be asked. No commit was asked for, so a new
            # producer, which aborts whatever is open, leaves nothing of it.
            self._replace(str(error))

    def _replace(self, reason: str) -> None:
        """Raises Fenced when there is no new producer."""
        log.warning("kafka_producer_replaced", reason=reason)
        self._producer.discard()
        try:
            self._producer = self._open()
        except KafkaError as error:
            raise Fenced(f"the producer could not be replaced: {error}") from error
