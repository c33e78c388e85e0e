"""Kafka as a log: one consumer group member that reads on a thread of its own."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import (
    CorruptRecordError,
    FencedInstanceIdError,
    KafkaError,
    LogTruncationError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
)
from kafka.future import Future

from worker.intake.framed_records import FramedRecords
from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_faults import classify, open_error
from worker.intake.kafka_gaps import GapKeeper
from worker.intake.kafka_open_transactions import OpenTransactions, describe_transactions
from worker.intake.kafka_output import KafkaOutput
from worker.intake.kafka_probe import require_login
from worker.intake.kafka_python_fixes import FixedConsumer
from worker.intake.log import Lag, LogError, LogRefused, Output, Partition, Poll, Record
from worker.intake.lost_records import accepted_positions
from worker.intake.producer_process import ProducerProcess
from worker.intake.schema_registry import open_registry
from worker.settings import KafkaSettings, SettingsError, TelemetrySettings

log = structlog.get_logger(__name__)

MAX_POLL_RECORDS = 500
POLLS_AHEAD = 4
POLL_SECONDS = 0.05
METADATA_SECONDS = 15
"""New partitions are found within this time; kafka-python's default is 300 s."""
CLOSE_SECONDS = 10.0


class _Assignment(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Turns kafka-python's callbacks into polls.

    They run on its network thread, inside the reader's `poll`, which waits for them: so a revocation may wait here,
    with heartbeats going on, until the member has released the partitions.
    """

    def __init__(self, happened: SimpleQueue[Poll | LogError], member_id: Callable[[], str]) -> None:
        self._happened = happened
        self._member_id = member_id
        self.member_ids: SimpleQueue[str] = SimpleQueue()
        self.pending: dict[Partition, Future] = {}
        self.closing = False
        self._changed: set[Partition] = set()

    def take_changed(self) -> set[Partition]:
        """The partitions that were assigned, revoked or lost since the last time. For the reader, between its polls."""
        changed, self._changed = self._changed, set()
        return changed

    async def on_partitions_assigned(self, assigned: Set[TopicPartition]) -> None:
        self._changed |= _ours(assigned)
        self.member_ids.put(self._member_id())
        self._happened.put(Poll(assigned=_ours(assigned)))

    async def on_partitions_revoked(self, revoked: Set[TopicPartition]) -> None:
        if self.closing or not revoked:
            return
        released = Future()
        partitions = _ours(revoked)
        self._changed |= partitions
        self.pending.update(dict.fromkeys(partitions, released))
        self._happened.put(Poll(revoked=partitions))
        await released

    async def on_partitions_lost(self, lost: Set[TopicPartition]) -> None:
        self._changed |= _ours(lost)
        self._happened.put(Poll(lost=_ours(lost)))


class KafkaLog:
    """Reads topics as a member of the group; commits outputs and offsets through KafkaOutput.

    kafka-python's `poll` waits for rebalance listeners without a timeout, so it has a thread of its own (the reader):
    the member can finish what is under way while partitions are being revoked. Whatever happens comes through one
    queue, in the order it happened. `telemetry` says how the producer's process writes its logs. Raises LogError when
    the broker cannot be reached or a topic is missing.
    """

    def __init__(self, settings: KafkaSettings, telemetry: TelemetrySettings, *, topics: Sequence[str]) -> None:
        self._instance_id = settings.group_instance_id
        self._happened: SimpleQueue[Poll | LogError] = SimpleQueue()
        self._room = threading.Semaphore(POLLS_AHEAD)
        self._assignment = _Assignment(self._happened, lambda: str(self._consumer.group_metadata().member_id))
        self._wanted_paused: Set[Partition] = frozenset()
        self._lag = Lag()
        self._closing = threading.Event()
        self._releasing = threading.Lock()
        self._reader = threading.Thread(target=self._read, name="sluice-kafka-read", daemon=True)
        with ExitStack() as opened:
            require_login(settings)
            # The producer takes longest to start, so it goes first, and the group is joined meanwhile.
            producer = ProducerProcess(settings, telemetry)
            opened.callback(producer.close, patience_seconds=0.0)
            try:
                self._consumer = self._open_consumer(settings)
                opened.callback(self._consumer.close, autocommit=False)
                require_topics(self._consumer.topics, topics, settings)
                self._gaps = GapKeeper(self._consumer, settings, accepted_positions)
                self._output = KafkaOutput(settings, producer, self._consumer, self._gaps.note)
                self._frames = FramedRecords(open_registry(settings))
                opened.callback(self._frames.close)
                self._transactions = OpenTransactions(self._consumer, describe_transactions(settings))
                self._consumer.subscribe(list(topics), listener=self._assignment)
            except KafkaError as error:
                raise open_error(error, settings) from error
            except SettingsError as error:
                raise LogRefused(str(error)) from error
            opened.pop_all()
        self._reader.start()
        try:
            producer.wait_until_ready()
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
        if happened.lost:
            self._output.member_id = None
        if happened.assigned:
            self._output.member_id = self._assignment.member_ids.get_nowait()
        if happened.records:
            self._room.release()
        return happened

    def pause(self, partitions: Set[Partition]) -> None:
        self._wanted_paused = frozenset(partitions)

    def release(self, partitions: Set[Partition]) -> None:
        """A revocation ends when the last of its partitions is released."""
        with self._releasing:
            futures = {self._assignment.pending.pop(p) for p in partitions if p in self._assignment.pending}
            for future in futures - set(self._assignment.pending.values()):
                self._consumer.complete(future)

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        self._output.commit(outputs, offsets)

    def health_problems(self) -> tuple[str, ...]:
        return (*self._gaps.health_problems(), *self._frames.problems())

    def notes(self) -> tuple[str, ...]:
        return self._transactions.notes()

    def lag(self) -> Lag:
        return self._lag

    def close(self) -> None:
        self._assignment.closing = True
        self._closing.set()
        self._room.release()
        self.release(set(self._assignment.pending))
        # An open transaction ends before the group hands the partitions to others.
        self._output.close()
        self._reader.join(CLOSE_SECONDS)
        self._frames.close()

    @staticmethod
    def _open_consumer(settings: KafkaSettings) -> FixedConsumer:
        return FixedConsumer(
            **connection_options(settings),
            group_id=settings.group_id,
            group_instance_id=settings.group_instance_id,
            enable_auto_commit=False,
            auto_offset_reset="none",  # GapKeeper says where to go on
            isolation_level="read_committed",
            max_poll_records=MAX_POLL_RECORDS,
            max_partition_fetch_bytes=settings.max_message_bytes,
            session_timeout_ms=int(settings.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(settings.session_timeout_seconds * 1000 / 5),
            fetch_max_wait_ms=100,
            metadata_max_age_ms=METADATA_SECONDS * 1000,
            allow_auto_create_topics=False,
            metrics_enabled=False,
        )

    def _read(self) -> None:
        """The reader: the only thread that calls the consumer."""
        try:
            while not self._closing.is_set():
                self._apply_pauses()
                polled = _records(self._poll_consumer())
                if changed := self._assignment.take_changed():
                    self._frames.forget(changed)
                records = self._frames.read(polled)
                self._lag = self._measure_lag()
                if records:
                    self._happened.put(Poll(records))
                    self._room.acquire()
        except CorruptRecordError as error:
            # The consumer never gets past it in this state; a new one fetches the bytes again.
            self._happened.put(LogError(f"a record failed its checksum: {error}"))
        except FencedInstanceIdError:
            self._happened.put(
                LogError(
                    f"another worker of this group uses kafka.group_instance_id {self._instance_id}; "
                    "give each worker a name of its own"
                )
            )
        except Exception as error:  # noqa: BLE001  # the member must hear of whatever ended the reader
            self._happened.put(LogError(f"reading failed: {classify(error).message}"))
        try:
            self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_SECONDS * 500))
        except Exception as error:  # noqa: BLE001
            log.warning("kafka_close_failed", error=f"{type(error).__name__}: {error}")

    def _poll_consumer(self) -> Mapping[TopicPartition, Sequence[Any]]:
        gaps = self._gaps.turn()
        batches: Mapping[TopicPartition, Sequence[Any]] = {}
        try:
            batches = self._consumer.poll(timeout_ms=int(POLL_SECONDS * 1000))
        except NoOffsetForPartitionError as error:
            self._gaps.begin(error.args[0])
        except OffsetOutOfRangeError as error:
            gaps += self._gaps.out_of_range(error.args[0])
        except LogTruncationError as error:
            gaps += self._gaps.truncated(error.divergent_offsets)
        self._gaps.delivered(batches)
        gaps += self._gaps.new_topics()
        if gaps:
            self._happened.put(Poll(gaps=gaps))
        return batches

    def _apply_pauses(self) -> None:
        wanted = (self._wanted_paused | self._gaps.stopped | self._frames.waiting) & _ours(self._consumer.assignment())
        current = _ours(self._consumer.paused())
        if wanted - current:
            self._consumer.pause(*_theirs(wanted - current))
        if current - wanted:
            self._consumer.resume(*_theirs(current - wanted))
        self._consumer.unpark_fetched()

    def _measure_lag(self) -> Lag:
        behind: dict[Partition, int] = {}
        ends: dict[Partition, int] = {}
        waiting: dict[TopicPartition, int] = {}
        paused = self._consumer.paused()
        for theirs in self._consumer.assignment():
            end = self._consumer.highwater(theirs)
            position = self._consumer.position_if_known(theirs)
            if end is not None and position is not None:
                partition = Partition(theirs.topic, theirs.partition)
                behind[partition] = max(0, end - position)
                ends[partition] = end
                if end > position and theirs not in paused:
                    waiting[theirs] = position
        self._transactions.observe(waiting)
        sizes = {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in {p.topic for p in ends}}
        return Lag(behind, ends, self._transactions.held | self._frames.waiting, sizes)


def require_topics(existing: Callable[[], Iterable[str]], read: Sequence[str], settings: KafkaSettings) -> None:
    """Raises LogError when a topic is missing or hidden; a worker must not wait for ever for one that was misspelt."""
    topics = settings.topics
    needed = {*read, topics.verdicts, topics.review, topics.dead}
    deadline = time.monotonic() + 5.0
    while missing := needed - set(existing()):
        if time.monotonic() >= deadline:
            raise LogError(
                f"topics {', '.join(sorted(missing))} do not exist at {settings.bootstrap_servers}, or are hidden from "
                "us for want of a permission: `sluice doctor` tells which; `sluice topics create` makes what is missing"
            )
        time.sleep(0.2)


def _records(batches: Mapping[TopicPartition, Sequence[Any]]) -> list[Record]:
    return [
        Record(
            partition,
            record.offset,
            record.value,
            record.key,
            tuple(record.headers or ()),
            record.timestamp,
        )
        for theirs, batch in batches.items()
        for partition in [Partition(theirs.topic, theirs.partition)]
        for record in batch
    ]


def _ours(partitions: Set[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(p.topic, p.partition) for p in partitions)


def _theirs(partitions: Set[Partition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number) for p in partitions]
