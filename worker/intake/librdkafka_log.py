"""Kafka as a log, through librdkafka: one consumer group member that reads on a thread of its own."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka import TopicPartition as Position
from kafka import TopicPartition
from kafka.errors import KafkaError as ProtocolError

from worker.intake.framed_records import FramedRecords
from worker.intake.kafka_faults import FaultKind, classify, open_error
from worker.intake.kafka_gaps import GapKeeper
from worker.intake.kafka_log import CLOSE_SECONDS, MAX_POLL_RECORDS, POLL_SECONDS, POLLS_AHEAD, require_topics
from worker.intake.kafka_open_transactions import OpenTransactions, describe_transactions
from worker.intake.kafka_probe import require_login
from worker.intake.librdkafka_faults import as_kafka_error, fault_of
from worker.intake.librdkafka_options import client_options, consumer_options
from worker.intake.librdkafka_output import ANSWER_SECONDS, GroupState, LibrdkafkaOutput
from worker.intake.librdkafka_positions import Positions
from worker.intake.librdkafka_topic_ids import TopicIds
from worker.intake.log import CommitFailed, Gap, Lag, LogError, LogRefused, Output, Partition, Poll, Record
from worker.intake.lost_records import accepted_positions
from worker.intake.schema_registry import open_registry
from worker.settings import KafkaSettings, SettingsError

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.1
COMMITTED_SECONDS: Final = 0.5
METADATA_SECONDS: Final = 10.0
ALL_PAUSED_SECONDS: Final = 1.0
"""While all partitions are paused, the consumer is left alone for so long before they are paused in librdkafka, which
drops what it has fetched ahead."""
_GONE = (KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION)


class _Event(NamedTuple):
    """Something that happened; `member_id` is set where partitions were assigned."""

    poll: Poll
    member_id: str | None = None


class LibrdkafkaLog:
    """Reads topics as a member of the group; commits outputs and offsets through LibrdkafkaOutput.

    Only one thread at a time may call the consumer: the reader. Others hand it their requests. The consumer calls back
    within `poll`, and expects revoked partitions to be free when the callback returns, so the callback waits until the
    member has released them. Whatever happens comes through one queue, in the order it happened. Raises LogError when
    the broker cannot be reached or a topic is missing.
    """

    def __init__(self, settings: KafkaSettings, *, topics: Sequence[str]) -> None:
        self._instance_id = settings.group_instance_id
        self._happened: SimpleQueue[_Event | LogError] = SimpleQueue()
        self._room = threading.Semaphore(POLLS_AHEAD)
        self._closing = threading.Event()
        self._unreleased: set[Partition] = set()
        self._wanted_paused: Set[Partition] = frozenset()
        self._paused: frozenset[Partition] = frozenset()
        self._unchecked: set[Partition] = set()
        """Partitions whose committed offsets were not yet compared with the topics that are there; they are paused."""
        self._polled_at = 0.0
        self._requests: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._group: GroupState | None = None
        self._lag = Lag()
        self._look_due = 0.0
        require_login(settings)
        self._consumer = Consumer(consumer_options(settings))
        self._topic_ids = TopicIds(client_options(settings), topics)
        self._positions = Positions(self._consumer, self._topic_ids)
        self._gaps = GapKeeper(self._positions, settings, accepted_positions)
        self._transactions = OpenTransactions(self._positions, describe_transactions(settings))
        self._output = LibrdkafkaOutput(settings, lambda: self._group, self._commit_offsets, self._gaps.note)
        try:
            self._frames = FramedRecords(open_registry(settings))
        except SettingsError as error:
            raise LogRefused(str(error)) from error
        self._reader = threading.Thread(target=self._read, name="sluice-kafka-read", daemon=True)
        with ExitStack() as opened:
            opened.callback(self._consumer.close)
            opened.callback(self._frames.close)
            try:
                require_topics(lambda: self._consumer.list_topics(timeout=METADATA_SECONDS).topics, topics, settings)
                self._topic_ids.wait(METADATA_SECONDS)
                self._consumer.subscribe(
                    list(topics),
                    on_assign=self._on_assign,
                    on_revoke=self._on_revoke,
                    on_lost=self._on_lost,
                )
            except KafkaException as error:
                raise open_error(as_kafka_error(error), settings) from error
            opened.pop_all()
        self._reader.start()
        try:
            self._output.open()
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_seconds: float) -> Poll:
        try:
            happened = self._happened.get(timeout=timeout_seconds) if timeout_seconds else self._happened.get_nowait()
        except Empty:
            return Poll()
        if isinstance(happened, LogError):
            raise happened
        poll, member_id = happened
        if poll.lost:
            self._output.member_id = None
        if member_id is not None:
            self._output.member_id = member_id
        if poll.records:
            self._room.release()
        return poll

    def pause(self, partitions: Set[Partition]) -> None:
        self._wanted_paused = frozenset(partitions)

    def release(self, partitions: Set[Partition]) -> None:
        """A revocation ends when the last of its partitions is released."""
        released = frozenset(partitions)  # the caller may change its set before the reader looks at it
        self._requests.put(lambda: self._unreleased.difference_update(released))

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        self._output.commit(outputs, offsets)

    def health_problems(self) -> tuple[str, ...]:
        return (*self._gaps.health_problems(), *self._frames.problems())

    def notes(self) -> tuple[str, ...]:
        return self._transactions.notes()

    def lag(self) -> Lag:
        return self._lag

    def close(self) -> None:
        self._closing.set()
        self._room.release()
        self._output.close()
        self._reader.join(CLOSE_SECONDS)
        self._frames.close()

    # -- librdkafka's callbacks, on the reader's thread, within `poll` ------------------------------------------------

    def _on_assign(self, _consumer: Consumer, assigned: list[Position]) -> None:
        self._consumer.incremental_assign(assigned)
        self._consumer.pause(assigned)
        self._paused |= _ours(assigned)
        self._unchecked |= _ours(assigned)
        self._frames.forget(_ours(assigned))
        self._group = self._ask_group()
        self._happened.put(_Event(Poll(assigned=_ours(assigned)), self._group.member_id))

    def _on_revoke(self, _consumer: Consumer, revoked: list[Position]) -> None:
        partitions = _ours(revoked)
        if self._closing.is_set() or not partitions:
            return
        self._group = self._ask_group()  # what is under way is committed with the new generation
        self._unreleased |= partitions
        self._happened.put(_Event(Poll(revoked=partitions)))
        while self._unreleased and not self._closing.is_set():
            self._serve_requests(POLL_SECONDS)
        self._positions.forget(partitions)
        self._frames.forget(partitions)

    def _on_lost(self, _consumer: Consumer, lost: list[Position]) -> None:
        partitions = _ours(lost)
        self._positions.forget(partitions)
        self._frames.forget(partitions)
        self._happened.put(_Event(Poll(lost=partitions)))

    # -- the reader ------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        """The only thread that polls the consumer."""
        try:
            while not self._closing.is_set():
                may_poll = self._may_poll()
                self._serve_requests(0.0 if may_poll else POLL_SECONDS / 5)
                if not may_poll:
                    continue
                polled, gaps = self._poll_consumer()
                records = self._frames.read(polled)
                self._look_around()
                if gaps:
                    self._happened.put(_Event(Poll(gaps=gaps)))
                if records:
                    self._happened.put(_Event(Poll(records)))
                    self._room.acquire()
        except LogError as error:
            self._happened.put(error)
        except (KafkaException, ProtocolError) as error:
            fault = fault_of(error) if isinstance(error, KafkaException) else classify(error)
            self._happened.put(LogError(f"reading failed: {fault.message}"))
        except Exception as error:  # noqa: BLE001  # the member must hear of whatever ended the reader
            self._happened.put(LogError(f"reading failed: {type(error).__name__}: {error}"))
        try:
            self._consumer.close()
        except Exception as error:  # noqa: BLE001
            log.warning("kafka_close_failed", error=f"{type(error).__name__}: {error}")

    def _may_poll(self) -> bool:
        """Pauses and resumes partitions as the member wants it; False while all are paused, and only for a moment."""
        assigned = _ours(self._positions.assignment())
        self._unchecked &= assigned
        kept_back = self._gaps.stopped | self._unchecked | self._frames.waiting
        wanted = (self._wanted_paused | kept_back) & assigned
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
        """Compares the committed offsets of partitions that were just assigned. They may have to wait until the broker
        has ended the transaction of a worker that died."""
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
        """Handles an error that came in the place of a record. Returns what was skipped. Raises LogError."""
        if error.code() == KafkaError._PARTITION_EOF:
            self._positions.reached(Partition(message.topic(), message.partition()), message.offset())
            return ()
        if error.code() in _GONE:
            return self._on_gone(TopicPartition(message.topic(), message.partition()))
        fault = fault_of(error)
        if error.code() == KafkaError.FENCED_INSTANCE_ID:
            raise LogError(
                f"another worker of this group uses kafka.group_instance_id {self._instance_id}; "
                "give each worker a name of its own"
            )
        if error.code() == KafkaError._BAD_MSG:
            raise LogError(f"a record failed its checksum: {error.str()}")
        if fault.kind is FaultKind.FATAL or fault.lasting:
            raise LogError(f"reading failed: {fault.message}")
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
        """Does what other threads have asked for; waits for a request so long."""
        with suppress(Empty):
            request = self._requests.get(timeout=wait_seconds) if wait_seconds else self._requests.get_nowait()
            while True:
                request()
                request = self._requests.get_nowait()

    def _commit_offsets(self, positions: list[Position]) -> None:
        """From the committing thread. Raises KafkaException; CommitFailed when there is no answer."""
        done: Future[None] = Future()

        def commit() -> None:
            try:
                self._consumer.commit(offsets=positions, asynchronous=False)
            except BaseException as error:  # noqa: BLE001  # it belongs to the thread that asked
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

    def _look_around(self) -> None:
        """Notes, now and then, what the group and the partitions have come to."""
        now = time.monotonic()
        if now < self._look_due:
            return
        self._look_due = now + LOOK_SECONDS
        self._group = self._ask_group()
        behind: dict[Partition, int] = {}
        ends: dict[Partition, int] = {}
        waiting: dict[TopicPartition, int] = {}
        for theirs in self._positions.assignment():
            end = self._positions.high_watermark(theirs)
            position = self._positions.position_if_known(theirs)
            if end is not None and position is not None:
                partition = Partition(*theirs)
                behind[partition] = max(0, end - position)
                ends[partition] = end
                if end > position and partition not in self._paused:
                    waiting[theirs] = position
        self._transactions.observe(waiting)
        held = self._transactions.held | self._frames.waiting
        self._lag = Lag(behind, ends, held, dict(self._topic_ids.partitions))


def _record(message: Any) -> Record:
    return Record(
        Partition(message.topic(), message.partition()),
        message.offset(),
        message.value(),
        message.key(),
        tuple(message.headers() or ()),
        message.timestamp()[1],
    )


def _ours(partitions: Iterable[Position | TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(position.topic, position.partition) for position in partitions)


def _theirs(partitions: Set[Partition]) -> list[Position]:
    return [Position(partition.topic, partition.number) for partition in partitions]
