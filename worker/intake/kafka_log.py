"""Kafka as a log: one consumer group member with a transactional producer."""

import time
import uuid
from collections import deque
from collections.abc import Mapping, Sequence, Set
from typing import Any

import structlog
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import (
    CommitFailedError,
    CorruptRecordError,
    FencedInstanceIdError,
    IllegalGenerationError,
    KafkaError,
    ProducerFencedError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)
from kafka.future import Future

from worker.intake.kafka_connection import connection_options
from worker.intake.log import CommitFailed, Fenced, Lag, LogError, Output, Partition, Poll, Record
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

MAX_POLL_RECORDS = 500
FLUSH_SECONDS = 30.0

_STALE_GENERATION = (
    CommitFailedError,
    FencedInstanceIdError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)


class _Assignment(AsyncConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Turns kafka-python's callbacks, which run on its network thread, into events that `poll` hands out.

    Revocation waits (heartbeats go on meanwhile) until the member has released the partitions.
    """

    def __init__(self) -> None:
        self.assigned: deque[frozenset[Partition]] = deque()
        self.revoked: deque[frozenset[Partition]] = deque()
        self.lost: deque[frozenset[Partition]] = deque()
        self.pending: dict[Partition, Future] = {}
        self.closing = False

    async def on_partitions_assigned(self, assigned: Set[TopicPartition]) -> None:
        self.assigned.append(_ours(assigned))

    async def on_partitions_revoked(self, revoked: Set[TopicPartition]) -> None:
        if self.closing or not revoked:
            return
        released = Future()
        partitions = _ours(revoked)
        self.pending.update(dict.fromkeys(partitions, released))
        self.revoked.append(partitions)
        await released

    async def on_partitions_lost(self, lost: Set[TopicPartition]) -> None:
        self.lost.append(_ours(lost))


class KafkaLog:
    """Reads the images topic as a member of the group; commits outputs and offsets in one transaction.

    With `delivery: at_least_once` outputs are acked first and offsets committed after, so that a crash between the two
    repeats outputs. Raises LogError when the broker cannot be reached or a topic is missing.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._transactional = settings.delivery == "exactly_once"
        self._assignment = _Assignment()
        try:
            self._consumer = KafkaConsumer(
                **connection_options(settings),
                group_id=settings.group_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                isolation_level="read_committed",
                partition_assignment_strategy=[CooperativeStickyAssignor],
                max_poll_records=MAX_POLL_RECORDS,
                max_partition_fetch_bytes=settings.max_message_bytes,
                session_timeout_ms=int(settings.session_timeout_seconds * 1000),
                heartbeat_interval_ms=int(settings.session_timeout_seconds * 1000 / 4),
                fetch_max_wait_ms=100,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
            self._producer = self._open_producer()
            self._require_topics()
            self._consumer.subscribe([settings.topics.images], listener=self._assignment)
        except KafkaError as error:
            raise LogError(
                f"Kafka at {settings.bootstrap_servers} cannot be used ({type(error).__name__}: {error}); "
                "check kafka.bootstrap_servers and that the broker runs"
            ) from error

    def poll(self, timeout_seconds: float) -> Poll:
        try:
            batches = self._consumer.poll(timeout_ms=timeout_seconds * 1000)
        except CorruptRecordError as error:
            # The consumer never gets past it in this state; a new one fetches the bytes again.
            raise LogError(f"a record failed its checksum: {error}") from error
        except KafkaError as error:
            raise LogError(f"poll failed: {type(error).__name__}: {error}") from error
        records = [
            Record(
                Partition(partition.topic, partition.partition),
                record.offset,
                record.value,
                record.key,
                tuple(record.headers or ()),
                record.timestamp,
            )
            for partition, batch in batches.items()
            for record in batch
        ]
        return Poll(
            records,
            assigned=_drain(self._assignment.assigned),
            revoked=_drain(self._assignment.revoked),
            lost=_drain(self._assignment.lost),
        )

    def pause(self, partitions: Set[Partition]) -> None:
        owned = _ours(self._consumer.assignment())
        wanted = partitions & owned
        current = _ours(self._consumer.paused())
        if wanted - current:
            self._consumer.pause(*_theirs(wanted - current))
        if current - wanted:
            self._consumer.resume(*_theirs(current - wanted))

    def release(self, partitions: Set[Partition]) -> None:
        for future in {self._assignment.pending.pop(p, None) for p in partitions} - {None}:
            future.success(None)

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        positions = {
            TopicPartition(partition.topic, partition.number): OffsetAndMetadata(offset, "", -1)
            for partition, offset in offsets.items()
        }
        if self._transactional:
            self._commit_transaction(outputs, positions)
        else:
            self._commit_after_acks(outputs, positions)

    def lag(self) -> Lag:
        behind: dict[Partition, int] = {}
        for partition in self._consumer.assignment():
            end = self._consumer.highwater(partition)
            if end is None:
                continue
            position = self._consumer._subscription.position(partition)
            if position is not None:
                behind[Partition(partition.topic, partition.partition)] = max(0, end - position.offset)
        return Lag(behind)

    def close(self) -> None:
        self._assignment.closing = True
        self.release(set(self._assignment.pending))
        try:
            # An open transaction ends before the group hands the partitions to others.
            self._producer.close(timeout=5)
            self._consumer.close(autocommit=False, timeout_ms=5000)
        except KafkaError as error:
            log.warning("kafka_close_failed", error=_describe(error))

    def _open_producer(self) -> Any:
        settings = self._settings
        options: dict[str, Any] = {
            **connection_options(settings),
            "acks": "all",
            "linger_ms": 5,
            "batch_size": 256 * 1024,
            "max_request_size": settings.max_message_bytes,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        if not self._transactional:
            return KafkaProducer(**options)
        producer = KafkaProducer(
            **options,
            transactional_id=settings.transactional_id or f"{settings.group_id}-{uuid.uuid4().hex}",
            transaction_timeout_ms=int(settings.transaction_timeout_seconds * 1000),
        )
        producer.init_transactions()
        return producer

    def _require_topics(self) -> None:
        topics = self._settings.topics
        missing = {topics.images, topics.verdicts, topics.review, topics.dead} - set(self._consumer.topics())
        if missing:
            raise LogError(
                f"topics {', '.join(sorted(missing))} do not exist at {self._settings.bootstrap_servers}; "
                "make them with `sluice topics create`"
            )

    def _commit_transaction(
        self, outputs: Sequence[Output], positions: dict[TopicPartition, OffsetAndMetadata]
    ) -> None:
        try:
            # 1. Everything that can fail without consequence happens before the commit marker is asked for.
            self._producer.begin_transaction()
            self._send_all(outputs)
            self._producer.send_offsets_to_transaction(positions, self._consumer.group_metadata())
        except ProducerFencedError as error:
            raise Fenced(f"another worker uses this transactional id: {error}") from error
        except (KafkaError, CommitFailed) as error:
            self._abort()
            stale = isinstance(error, _STALE_GENERATION)
            raise CommitFailed(
                "the group has moved on; trying again with the new generation" if stale else _describe(error)
            ) from error
        try:
            # 2. From here the outcome is the broker's: if we do not hear of it, only the committed offsets tell.
            self._producer.commit_transaction()
        except KafkaError as error:
            raise Fenced(f"the outcome of a commit is unknown: {_describe(error)}") from error

    def _commit_after_acks(self, outputs: Sequence[Output], positions: dict[TopicPartition, OffsetAndMetadata]) -> None:
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
        futures = [self._producer.send(o.topic, value=o.value, key=o.key, headers=list(o.headers)) for o in outputs]
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


def _ours(partitions: Set[TopicPartition]) -> frozenset[Partition]:
    return frozenset(Partition(p.topic, p.partition) for p in partitions)


def _theirs(partitions: Set[Partition]) -> list[TopicPartition]:
    return [TopicPartition(p.topic, p.number) for p in partitions]


def _drain(events: deque[frozenset[Partition]]) -> frozenset[Partition]:
    drained: frozenset[Partition] = frozenset()
    while events:
        drained |= events.popleft()
    return drained


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
