"""Kafka as a log, through kafka-python."""

from collections.abc import Callable, Mapping, Sequence, Set
from queue import SimpleQueue
from threading import Event, Lock
from typing import Any, Final

from kafka import TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.errors import LogTruncationError, NoOffsetForPartitionError, OffsetOutOfRangeError
from kafka.future import Future

from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_log_base import (
    CLOSE_SECONDS,
    MAX_POLL_RECORDS,
    POLL_SECONDS,
    GroupEvent,
    KafkaLogBase,
    as_partitions,
    opening,
    require_topics,
)
from worker.intake.kafka_output import KafkaOutput
from worker.intake.kafka_python_fixes import FixedConsumer
from worker.intake.log import Gap, LogError, Partition, Poll, Record
from worker.intake.producer_process import ProducerProcess
from worker.settings import KafkaSettings, TelemetrySettings

METADATA_SECONDS: Final = 15
"""New partitions are found within this time; kafka-python's default is 300 s."""


class _Assignment(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Turns kafka-python's callbacks into events.

    They run on its network thread, inside the reader's `poll`, which waits for them. So a revocation can wait here
    until the member has released the partitions, and heartbeats continue.
    """

    def __init__(
        self, events: SimpleQueue[GroupEvent | LogError], member_id: Callable[[], str], closing: Event
    ) -> None:
        self._events = events
        self._member_id = member_id
        self._closing = closing
        self.pending: dict[Partition, Future] = {}
        self._changed: set[Partition] = set()

    def take_changed(self) -> set[Partition]:
        """The partitions that were assigned, revoked or lost since the last time. For the reader, between its polls."""
        changed, self._changed = self._changed, set()
        return changed

    async def on_partitions_assigned(self, assigned: Set[TopicPartition]) -> None:
        self._changed |= as_partitions(assigned)
        self._events.put(GroupEvent(Poll(assigned=as_partitions(assigned)), self._member_id()))

    async def on_partitions_revoked(self, revoked: Set[TopicPartition]) -> None:
        if self._closing.is_set() or not revoked:
            return
        released = Future()
        partitions = as_partitions(revoked)
        self._changed |= partitions
        self.pending.update(dict.fromkeys(partitions, released))
        self._events.put(GroupEvent(Poll(revoked=partitions)))
        await released

    async def on_partitions_lost(self, lost: Set[TopicPartition]) -> None:
        self._changed |= as_partitions(lost)
        self._events.put(GroupEvent(Poll(lost=as_partitions(lost))))


class KafkaLog(KafkaLogBase):
    """Commits outputs and offsets through KafkaOutput, whose producer has a process of its own.

    kafka-python's `poll` waits for rebalance listeners without a timeout. `telemetry` says how the producer's process
    writes its logs. Raises LogError when the broker cannot be reached or a topic is missing.
    """

    def __init__(self, settings: KafkaSettings, telemetry: TelemetrySettings, *, topics: Sequence[str]) -> None:
        super().__init__(settings)
        self._assignment = _Assignment(
            self._events, lambda: str(self._consumer.group_metadata().member_id), self._closing
        )
        self._releasing = Lock()
        with opening(settings) as opened:
            # The producer takes longest to start, so it goes first, and the group is joined meanwhile.
            producer = ProducerProcess(settings, telemetry)
            opened.callback(producer.close, patience_seconds=0.0)
            self._consumer = self._open_consumer(settings)
            opened.callback(self._consumer.close, autocommit=False)
            require_topics(self._consumer.topics, topics, settings)
            self._open_checks(self._consumer, opened)
            self._output = KafkaOutput(settings, producer, self._consumer, self._gaps.note)
            self._consumer.subscribe(list(topics), listener=self._assignment)
        self._start(producer.wait_until_ready)

    def release(self, partitions: Set[Partition]) -> None:
        with self._releasing:
            futures = {self._assignment.pending.pop(p) for p in partitions if p in self._assignment.pending}
            for future in futures - set(self._assignment.pending.values()):
                self._consumer.complete(future)

    def close(self) -> None:
        self._closing.set()
        self.release(set(self._assignment.pending))
        super().close()

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

    def _poll_consumer(self) -> tuple[list[Record], tuple[Gap, ...]]:
        self._apply_pauses()
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
        if changed := self._assignment.take_changed():
            self._frames.forget(changed)
        return _records(batches), gaps + self._gaps.new_topics()

    def _close_consumer(self) -> None:
        self._consumer.close(autocommit=False, timeout_ms=int(CLOSE_SECONDS * 500))

    def _partition_counts(self) -> Mapping[str, int]:
        topics = {partition.topic for partition in self._consumer.assignment()}
        return {topic: len(self._consumer.partitions_for_topic(topic) or ()) for topic in topics}

    def _apply_pauses(self) -> None:
        wanted = self._paused_partitions(as_partitions(self._consumer.assignment()))
        current = as_partitions(self._consumer.paused())
        if wanted - current:
            self._consumer.pause(*_theirs(wanted - current))
        if current - wanted:
            self._consumer.resume(*_theirs(current - wanted))
        self._consumer.unpark_fetched()


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


def _theirs(partitions: Set[Partition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number) for p in partitions]
