"""Commits outputs and consumer offsets to Kafka through librdkafka."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from worker.intake.kafka_faults import FaultKind, commit_error, open_error
from worker.intake.kafka_limits import TopicLimits
from worker.intake.kafka_producer import for_one_worker
from worker.intake.librdkafka_faults import as_kafka_error, fault_of
from worker.intake.librdkafka_options import producer_options
from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

BATCH_BYTES: Final = 256 * 1024
ANSWER_SECONDS: Final = 30.0
STEP_SECONDS: Final = 1.0


class GroupState(NamedTuple):
    """What the group knows this member by. `metadata` were taken before `member_id`: where librdkafka has joined again
    between the two, they are those of the member that was removed, which the broker refuses."""

    metadata: object
    member_id: str


class LibrdkafkaOutput:
    """Commits for one member of the consumer group. Call `open` first, and `commit` from one thread only.

    With `delivery: exactly_once` outputs and offsets are one transaction. With `at_least_once` outputs are acknowledged
    first and offsets committed after, so a crash between the two repeats outputs.

    `member_id` is this member's id when partitions were last assigned to it. After the group has removed the member,
    librdkafka rejoins by itself with a new id; outputs that were prepared before must not be committed with that id.
    """

    member_id: str | None = None

    def __init__(
        self,
        settings: KafkaSettings,
        group: Callable[[], GroupState | None],
        commit_offsets: Callable[[list[TopicPartition]], None],
        note: Callable[[Partition], str],
    ) -> None:
        """`group` gives the latest state of the member, `commit_offsets` commits offsets alone, and `note` says what is
        committed beside a partition's offset."""
        self._settings = settings
        self._group = group
        self._commit_offsets = commit_offsets
        self._note = note
        self._limits = TopicLimits(settings)
        self._transactional = settings.delivery == "exactly_once"
        self._options = producer_options(for_one_worker(settings), min(BATCH_BYTES, self._limits.smallest()))
        self._failed: list[tuple[KafkaError, Message]] = []
        self._producer: Producer | None = None

    def open(self) -> None:
        """Makes the producer and ends what an earlier one of its name left open. Raises LogError."""
        try:
            self._producer = self._new_producer()
        except KafkaException as error:
            raise open_error(as_kafka_error(error), self._settings) from error

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        """See Log.commit."""
        if self._producer is None:
            raise Fenced("the producer is closed")
        self._limits.require(outputs)
        positions = [
            TopicPartition(partition.topic, partition.number, offset, self._note(partition))
            for partition, offset in offsets.items()
        ]
        if self._transactional:
            self._commit_transaction(self._producer, outputs, positions)
        else:
            self._commit_in_turn(self._producer, outputs, positions)

    def close(self) -> None:
        """Drops the producer without waiting for what it still holds; nothing of an open transaction is committed."""
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()

    def _new_producer(self) -> Producer:
        producer = Producer(self._options | {"on_delivery": self._on_delivery})
        if self._transactional:
            _until_answered(lambda: producer.init_transactions(STEP_SECONDS))
        return producer

    def _on_delivery(self, error: KafkaError, message: Message) -> None:
        """Hears of failures only."""
        self._failed.append((error, message))

    # -- the two kinds of delivery -----------------------------------------------------------------------------------

    def _commit_transaction(
        self, producer: Producer, outputs: Sequence[Output], positions: list[TopicPartition]
    ) -> None:
        try:
            # 1. Everything that can fail without consequence comes before the commit marker is asked for. The group's
            #    generation goes along, so that a member which was replaced cannot commit (KIP-447).
            producer.begin_transaction()
            self._send(producer, outputs)
            group = self._require_membership()
            _until_answered(lambda: producer.send_offsets_to_transaction(positions, group, STEP_SECONDS))
        except Fenced:
            raise
        except CommitFailed:
            self._abort(producer)
            raise
        except KafkaException as error:
            if fault_of(error).kind is FaultKind.FATAL:
                raise Fenced(f"this producer can do no more: {error.args[0].str()}") from error
            self._abort(producer)
            raise commit_error(as_kafka_error(error)) from error
        try:
            # 2. From here the outcome is the broker's; if we do not hear of it, only the committed offsets tell.
            _until_answered(lambda: producer.commit_transaction(STEP_SECONDS))
        except KafkaException as error:
            if not error.args[0].txn_requires_abort():
                raise Fenced(f"the outcome of a commit is unknown: {error.args[0].str()}") from error
            self._abort(producer)
            raise commit_error(as_kafka_error(error)) from error

    def _commit_in_turn(self, producer: Producer, outputs: Sequence[Output], positions: list[TopicPartition]) -> None:
        try:
            self._send(producer, outputs)
            self._require_membership()
            self._commit_offsets(positions)
        except KafkaException as error:
            raise commit_error(as_kafka_error(error)) from error

    def _require_membership(self) -> object:
        """The group's metadata, which go along with the offsets. Raises Fenced when they are not ours any more."""
        group = self._group()
        if group is None or not self.member_id or group.member_id != self.member_id:
            raise Fenced("the group has removed this member; other members own its partitions now")
        return group.metadata

    def _send(self, producer: Producer, outputs: Sequence[Output]) -> None:
        """Returns when all are acknowledged. Raises CommitFailed, or a kind of it, and KafkaException."""
        self._failed.clear()
        for at, (topic, value, key, headers) in enumerate(outputs):
            while True:
                try:
                    producer.produce(topic, value, key, headers=list(headers))
                except BufferError:
                    producer.poll(STEP_SECONDS)
                except KafkaException as error:
                    fault = fault_of(error)
                    if fault.too_large:
                        raise self._limits.refused(outputs, [at]) from error
                    if fault.kind is FaultKind.FATAL:
                        raise
                    raise commit_error(as_kafka_error(error), f"{topic}: ") from error
                else:
                    break
        if producer.flush(ANSWER_SECONDS) and not self._failed:
            raise CommitFailed("outputs were not acked: no answer")
        if self._failed:
            raise self._failure(outputs)

    def _failure(self, outputs: Sequence[Output]) -> CommitFailed:
        too_large = {_content(message) for error, message in self._failed if fault_of(error).too_large}
        if too_large:
            positions = [at for at, output in enumerate(outputs) if (output.topic, output.value) in too_large]
            return self._limits.refused(outputs, positions)
        # One refusal fails the outputs after it too: the one that lasts is the cause.
        error, message = min(self._failed, key=lambda failed: not fault_of(failed[0]).lasting)
        return commit_error(as_kafka_error(error), f"{message.topic()}: ")

    def _abort(self, producer: Producer) -> None:
        """Ends the transaction, by a new producer where need be. Raises Fenced."""
        try:
            _until_answered(lambda: producer.abort_transaction(STEP_SECONDS))
        except KafkaException as error:
            if error.args[0].code() == KafkaError._FENCED:
                raise Fenced(f"another worker uses this transactional id: {error.args[0].str()}") from error
            log.warning("kafka_producer_replaced", reason=error.args[0].str())
            producer.purge()
            try:
                self._producer = self._new_producer()
            except KafkaException as failure:
                raise Fenced(f"the producer could not be replaced: {failure.args[0].str()}") from failure


def _content(message: Message) -> tuple[str | None, bytes | None]:
    return message.topic(), message.value()


def _until_answered(call: Callable[[], object]) -> None:
    """Calls again while librdkafka says that the same call may succeed, for ANSWER_SECONDS at most.

    Raises KafkaException.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            call()
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() >= deadline:
                raise
        else:
            return
