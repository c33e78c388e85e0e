"""Kafka as a log, through librdkafka."""

import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position
from kafka import TopicPartition
from kafka.errors import KafkaError as ProtocolError

from worker.intake.kafka_faults import FaultKind, classify
from worker.intake.kafka_log_base import (
    MAX_POLL_RECORDS,
    POLL_SECONDS,
    GroupEvent,
    KafkaLogBase,
    as_partitions,
    opening,
    require_topics,
)
from worker.intake.librdkafka_faults import as_kafka_error, fault_of
from worker.intake.librdkafka_options import client_options, consumer_options
from worker.intake.librdkafka_output import ANSWER_SECONDS, GroupState, LibrdkafkaOutput
from worker.intake.librdkafka_positions import Positions
from worker.intake.librdkafka_topic_ids import TopicIds
from worker.intake.log import CommitFailed, Gap, Lag, LogError, Partition, Poll, Record
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

COMMITTED_SECONDS: Final = 0.5
METADATA_SECONDS: Final = 10.0
ALL_PAUSED_SECONDS: Final = 1.0
"""While all partitions are paused, the consumer is left alone for so long before they are paused in librdkafka, which
drops what it has fetched ahead."""
_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION)
_ENDS_READING = (KafkaError.FENCED_INSTANCE_ID, KafkaError._BAD_MSG)


class LibrdkafkaLog(KafkaLogBase):
    """Commits outputs and offsets through LibrdkafkaOutput.

    Only one thread at a time may call the consumer: the reader. Others hand it their requests. The consumer calls back
    within `poll`, and expects revoked partitions to be free when the callback returns, so the callback waits until the
    member has released them. Raises LogError when the broker cannot be reached or a topic is missing.
    """

    _positions: Positions

    def __init__(self, settings: KafkaSettings, *, topics: Sequence[str]) -> None:
        super().__init__(settings)
        self._unreleased: set[Partition] = set()
        self._paused: frozenset[Partition] = frozenset()
        self._unchecked: set[Partition] = set()
        """Partitions whose committed offsets were not yet compared with the topics that are there; they are paused."""
        self._polled_at = 0.0
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._group: GroupState | None = None
        with opening(settings) as opened:
            try:
                self._consumer = Consumer(consumer_options(settings))
                opened.callback(self._consumer.close)
                self._topic_ids = TopicIds(client_options(settings), topics)
                self._open_checks(Positions(self._consumer, self._topic_ids), opened)
                output = LibrdkafkaOutput(settings, lambda: self._group, self._commit_offsets, self._gaps.note)
                self._output = output
                require_topics(lambda: self._consumer.list_topics(timeout=METADATA_SECONDS).topics, topics, settings)
                self._topic_ids.wait(METADATA_SECONDS)
                self._consumer.subscribe(
                    list(topics),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
            except KafkaException as error:
                raise as_kafka_error(error) from error
        self._start(output.open)

    def release(self, partitions: Set[Partition]) -> None:
        released = frozenset(partitions)  # the caller may change its set before the reader looks at it
        self._requests.put(lambda: self._unreleased.difference_update(released))

    # -- librdkafka's callbacks, on the reader's thread, within `poll` ------------------------------------------------

    def _on_assign(self, _consumer: Consumer, assigned: list[Position]) -> None:
        self._consumer.incremental_assign(assigned)
        self._consumer.pause(assigned)
        self._paused |= as_partitions(assigned)
        self._unchecked |= as_partitions(assigned)
        self._frames.forget(as_partitions(assigned))
        self._group = self._ask_group()
        self._events.put(GroupEvent(Poll(assigned=as_partitions(assigned)), self._group.member_id))

    def _on_revoke(self, _consumer: Consumer, revoked: list[Position]) -> None:
        partitions = as_partitions(revoked)
        if self._closing.is_set() or not partitions:
            return
        self._group = self._ask_group()  # what is under way is committed with the new generation
        self._unreleased |= partitions
        self._events.put(GroupEvent(Poll(revoked=partitions)))
        while self._unreleased and not self._closing.is_set():
            self._serve_requests(POLL_SECONDS)
        self._positions.forget(partitions)
        self._frames.forget(partitions)

    def _on_lost(self, _consumer: Consumer, lost: list[Position]) -> None:
        partitions = as_partitions(lost)
        self._positions.forget(partitions)
        self._frames.forget(partitions)
        self._events.put(GroupEvent(Poll(lost=partitions)))

    # -- the reader ------------------------------------------------------------------------------------------------

    def _paused_partitions(self, assigned: Set[Partition]) -> Set[Partition]:
        return super()._paused_partitions(assigned) | (self._unchecked & assigned)

    def _read_error(self, error: Exception) -> LogError:
        return super()._read_error(as_kafka_error(error) if isinstance(error, KafkaException) else error)

    def _close_consumer(self) -> None:
        self._consumer.close()

    def _partition_counts(self) -> Mapping[str, int]:
        return dict(self._topic_ids.partitions)

    def _measure_lag(self) -> Lag:
        self._group = self._ask_group()
        return super()._measure_lag()

    def _may_poll(self) -> bool:
        """Pauses and resumes partitions as the member asked. False while all are paused, for ALL_PAUSED_SECONDS."""
        assigned = as_partitions(self._positions.assignment())
        self._unchecked &= assigned
        wanted = self._paused_partitions(assigned)
        now = time.monotonic()
        if assigned and wanted == assigned and not self._unchecked and now - self._polled_at < ALL_PAUSED_SECONDS:
            return False
        self._polled_at = now
        if wanted != self._paused:
            if more := wanted - self._paused:
                self._consumer.pause(_theirs(more))
            if less := (self._paused & assigned) - wanted:
                self._consumer.resume(_theirs(less))
            self._paused = frozenset(wanted)
        return True

    def _poll_consumer(self) -> tuple[list[Record], tuple[Gap, ...]]:
        may_poll = self._may_poll()
        self._serve_requests(0.0 if may_poll else POLL_SECONDS / 5)
        if not may_poll:
            return [], ()
        self._topic_ids.turn()
        self._check_offsets()
        gaps = self._gaps.turn() + self._gaps.new_topics()
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            return [], gaps
        # without a wait: `consume` would wait until it has as many as were asked for
        messages = [first, *self._consumer.consume(MAX_POLL_RECORDS - 1, 0)]
        records: list[Record] = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(_record(message))
            else:
                gaps += self._on_error(message, error)
        self._positions.read(records)
        self._gaps.delivered({TopicPartition(*record.partition) for record in records})
        return records, gaps

    def _check_offsets(self) -> None:
        """Compares the committed offsets of partitions that were just assigned. It may have to wait until the broker
        has ended the transaction of a dead worker."""
        if not self._unchecked:
            return
        try:
            self._positions.compare([TopicPartition(*partition) for partition in self._unchecked], COMMITTED_SECONDS)
        except ProtocolError as error:
            if classify(error).kind is not FaultKind.RETRIABLE:
                raise
        else:
            self._unchecked.clear()

    def _on_error(self, message: Any, error: KafkaError) -> tuple[Gap, ...]:
        """Handles an error that arrived instead of a record. Returns what was skipped. Raises kafka-python's error when
        reading cannot continue."""
        if error.code() == KafkaError._PARTITION_EOF:
            self._positions.reached(Partition(message.topic(), message.partition()), message.offset())
            return ()
        if error.code() in _GONE:
            return self._on_gone(TopicPartition(message.topic(), message.partition()))
        fault = fault_of(error)
        if error.code() in _ENDS_READING or fault.kind is FaultKind.FATAL or fault.lasting:
            raise as_kafka_error(error)
        log.info("kafka_read_delayed", error=error.str())  # librdkafka tries again by itself
        return ()

    def _on_gone(self, partition: TopicPartition) -> tuple[Gap, ...]:
        """The partition has no record at the position that comes next, or the group has no position yet."""
        position = self._positions.position_if_known(partition)
        if position is None:
            found = self._positions.committed([partition], METADATA_SECONDS).get(partition)
            if found is None:
                self._gaps.begin([partition])
                return ()
            position = found.offset
        return self._gaps.out_of_range({partition: position})

    def _serve_requests(self, wait_seconds: float) -> None:
        """Runs the requests of other threads; waits at most `wait_seconds` for the first."""
        with suppress(Empty):
            request = self._requests.get(timeout=wait_seconds) if wait_seconds else self._requests.get_nowait()
            while True:
                request()
                request = self._requests.get_nowait()

    def _commit_offsets(self, positions: list[Position]) -> None:
        """Called by the committing thread. Raises KafkaException, or CommitFailed when there is no answer."""
        done: Future[None] = Future()

        def commit() -> None:
            try:
                self._consumer.commit(offsets=positions, asynchronous=False)
            except BaseException as error:  # noqa: BLE001  # the thread that asked raises it
                done.set_exception(error)
            else:
                done.set_result(None)

        self._requests.put(commit)
        try:
            done.result(ANSWER_SECONDS)
        except TimeoutError as error:
            raise CommitFailed("offsets were not committed: no answer") from error

    def _ask_group(self) -> GroupState:
        metadata = self._consumer.consumer_group_metadata()
        return GroupState(metadata, self._consumer.memberid() or "")


def _record(message: Any) -> Record:
    return Record(
        Partition(message.topic(), message.partition()),
        message.offset(),
        message.value(),
        message.key(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )


def _theirs(partitions: Set[Partition]) -> list[Position]:
    return [Position(partition.topic, partition.number) for partition in partitions]
