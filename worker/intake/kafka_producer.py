"""Writes to Kafka: outputs alone, or outputs and a group's offsets in one transaction."""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import structlog
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import InvalidRecordError, KafkaError, KafkaTimeoutError, ProducerFencedError, UnknownError
from kafka.structs import ConsumerGroupMetadata

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_faults import FaultKind, classify, commit_error
from worker.intake.kafka_limits import TopicLimits
from worker.intake.kafka_python_fixes import FixedProducer
from worker.intake.key_partitions import partitions_of_keys
from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

BATCH_BYTES = 256 * 1024
FLUSH_SECONDS = 30.0
FLUSH_STEP_SECONDS = 1.0
METADATA_SECONDS = 10.0
"""How long a send waits for a topic that the brokers do not know, before the commit fails and says so."""
_FENCED = "another worker uses this transactional id, or kafka.transaction_timeout_seconds are over: {}"


def for_one_worker(settings: KafkaSettings) -> KafkaSettings:
    """`settings` with a transactional id, for a worker to keep when it opens its log again after a failure.

    With the same id the new producer aborts at once what the failed one left open. With a new id, the partitions would
    wait until `transaction_timeout_seconds` have passed.
    """
    if settings.transactional_id is not None:
        return settings
    name = settings.group_instance_id or uuid.uuid4().hex
    return settings.model_copy(update={"transactional_id": f"{settings.group_id}-{name}"})


class Producer:
    """Owns a kafka-python producer. Belongs to one thread."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._limits = TopicLimits(settings)
        options: dict[str, Any] = {
            **connection_options(settings),
            "acks": "all",
            "linger_ms": 5,
            # A batch that a topic does not take is split, which kafka-python 3.0.12 does wrongly in a transaction.
            "batch_size": min(BATCH_BYTES, self._limits.smallest()),
            "max_request_size": settings.max_message_bytes,
            "max_block_ms": int(METADATA_SECONDS * 1000),
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        transactional = settings.delivery == "exactly_once"
        if transactional:
            options["transactional_id"] = for_one_worker(settings).transactional_id
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
        """Returns when all are acked. Raises CommitFailed, or a kind of it: CommitRefused, OutputsTooLarge."""
        try:
            self._send_all(outputs)
        except (KafkaError, CommitFailed) as error:
            # An idempotent producer refuses everything after an output that the broker refused for good.
            self._replace(str(error))
            raise _of_a_commit(error) from error

    def send_in_transaction(
        self, outputs: Sequence[Output], offsets: Mapping[Partition, tuple[int, str]], group: ConsumerGroupMetadata
    ) -> None:
        """Returns when outputs and offsets are committed, each offset with a note about it.

        Raises CommitFailed when nothing happened, or a kind of it: CommitRefused, OutputsTooLarge. Raises Fenced when
        another worker took over or the outcome is unknown.
        """
        positions = {
            TopicPartition(partition.topic, partition.number): OffsetAndMetadata(offset, note, -1)
            for partition, (offset, note) in offsets.items()
        }
        try:
            # 1. Everything that can fail without consequence comes before the commit marker is asked for. The group's
            #    generation goes along, so that a member which was replaced cannot commit (KIP-447).
            self._producer.begin_transaction()
            self._send_all(outputs)
            self._producer.send_offsets_to_transaction(positions, group)
        except ProducerFencedError as error:
            raise Fenced(_FENCED.format(error)) from error
        except CommitFailed as error:
            # kafka-python 3.0.12 has counted records that were never stored: the broker would refuse what follows them.
            if self._abort():
                self._replace(str(error))
            raise
        except KafkaError as error:
            fault = classify(error)
            if fault.kind is FaultKind.FATAL:
                raise Fenced(f"this producer can do no more: {fault.message}") from error
            self._abort()
            raise commit_error(error) from error
        try:
            # 2. From here the outcome is the broker's; if we do not hear of it, only the committed offsets tell.
            self._producer.commit_transaction()
        except KafkaError as error:
            raise Fenced(f"the outcome of a commit is unknown: {error}") from error

    def close(self) -> None:
        """Ends the producer; nothing is under way, as each call returns when all is sent or given up."""
        self._producer.discard()

    def _send_all(self, outputs: Sequence[Output]) -> None:
        self._limits.require(outputs)
        failures = self._unacknowledged(outputs)
        if not failures:
            return
        told = {at: error for at, error in failures.items() if error is not None}
        too_large = [at for at, error in told.items() if classify(error).too_large]
        if too_large:
            raise self._limits.refused(outputs, too_large)
        # One refusal fails the outputs after it too: the one that lasts is the cause. The other records of its batch
        # fail as InvalidRecordError, whatever it was.
        for at in sorted(told, key=lambda at: (not classify(told[at]).lasting, type(told[at]) is InvalidRecordError)):
            raise commit_error(told[at], f"{outputs[at].topic}: ")
        raise CommitFailed("an output was not acked: no answer")

    def _unacknowledged(self, outputs: Sequence[Output]) -> dict[int, KafkaError | None]:
        """Sends the outputs; returns why some were not acknowledged, by position, None where nobody says.

        A large output is sent in a batch of its own. Otherwise kafka-python 3.0.12 splits the batch when the broker
        refuses it for its size, and the second half, sent before the first is refused, costs the transaction.
        """
        sent: list[Any] = []
        refused: KafkaError | None = None
        partitions: dict[str, Iterator[int]] = {}
        for output in outputs:
            large = len(output.value) >= BATCH_BYTES // 2
            if large:
                self._flush(sent)
            topic, value, key, headers = output
            try:
                partition = None
                if key is not None:
                    if topic not in partitions:
                        partitions[topic] = iter(self._partitions(topic, outputs))
                    partition = next(partitions[topic])
                sent.append(self._producer.send(topic, value, key, list(headers), partition))
            except ProducerFencedError:
                raise
            except KafkaError as error:  # no such topic, or what befell an output before this one
                refused = error
                break
            if large:
                self._flush(sent)
                if not sent[-1].succeeded():
                    break
        self._flush(sent)
        # A batch that expired inside a transaction does not fail the commit by itself: look at each.
        failures = {at: future.exception for at, future in enumerate(sent) if not future.succeeded()}
        if refused is not None:
            failures.setdefault(len(sent), refused)
        return failures

    def _partitions(self, topic: str, outputs: Sequence[Output]) -> list[int]:
        """The partitions of a topic's outputs that have keys, in their order. Raises KafkaError."""
        keys = [output.key for output in outputs if output.topic == topic and output.key is not None]
        return partitions_of_keys(keys, len(self._producer.partitions_for(topic)))

    def _flush(self, futures: Sequence[Any]) -> None:
        """Waits until all are answered, or one has failed: the broker may have ended the transaction, and kafka-python
        never sends the others then."""
        deadline = time.monotonic() + FLUSH_SECONDS
        while True:
            try:
                self._producer.flush(timeout=FLUSH_STEP_SECONDS)
            except (KafkaTimeoutError, UnknownError):
                if time.monotonic() >= deadline or any(future.failed() for future in futures):
                    return
            else:
                return

    def _abort(self) -> bool:
        """Ends the transaction; False when that took another producer. Raises Fenced."""
        try:
            self._producer.abort_transaction()
        except ProducerFencedError as error:
            raise Fenced(_FENCED.format(error)) from error
        except KafkaError as error:
            # The broker has ended the transaction itself, or cannot be asked. No commit was asked for, so a new
            # producer, which aborts whatever is open, leaves nothing of it.
            self._replace(str(error))
            return False
        return True

    def _replace(self, reason: str) -> None:
        """Raises Fenced when there is no new producer."""
        log.warning("kafka_producer_replaced", reason=reason)
        self._producer.discard()
        try:
            self._producer = self._open()
        except KafkaError as error:
            raise Fenced(f"the producer could not be replaced: {error}") from error


def _of_a_commit(error: KafkaError | CommitFailed) -> CommitFailed:
    return error if isinstance(error, CommitFailed) else commit_error(error)
