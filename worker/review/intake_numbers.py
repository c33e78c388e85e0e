"""How the gate itself keeps up: events that came, and how many wait for a verdict. EventText from offsets alone."""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_reading import explained, open_reader, partitions_of
from worker.intake.log import LogError, Partition
from worker.intake.sqlite_topics import SqliteTopics
from worker.review.waiting import WaitedTooLong, held
from worker.settings import KafkaSettings, Settings

HOUR: Final = 3600
ANSWER_MS: Final = 5000
"""Longest wait for one answer of the broker."""
LOCK_SECONDS: Final = 10.0

Offsets = Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class IntakeNumbers:
    """`events` came in each of the hours asked for, in order; None for an hour whose records are kept no more.
    `behind`: records of the topic that no worker has finished."""

    events: tuple[int | None, ...]
    behind: int


class OffsetSource(Protocol):
    """The topic of events, as offsets. Raises LogError."""

    def starts(self) -> Offsets: ...

    def ends(self) -> Offsets: ...

    def committed(self) -> Offsets:
        """The next offset that the group's workers have yet to finish, of the partitions where it has finished any."""
        ...

    def at(self, seconds: float) -> Offsets:
        """The first offset at or after a time; the end where there is none yet."""
        ...


class IntakeCounter:
    """Counts. Safe to use from several threads.

    Kafka answers for a time with the first offset at or after it, so an hour costs one question, and one that was
    answered does not change: it is remembered. What a producer's transactions add to the offsets counts too.
    """

    def __init__(self, open_offsets: Callable[[], AbstractContextManager[OffsetSource]]) -> None:
        self._open = open_offsets
        self._lock = threading.Lock()
        self._past: dict[int, Offsets] = {}

    def numbers(self, hours: Sequence[int]) -> IntakeNumbers:
        """`hours` are beginnings of hours, in order and one after the other; seconds. Raises LogError."""
        try:
            with held(self._lock, LOCK_SECONDS, "counting events"), self._open() as offsets:
                starts, ends, committed = offsets.starts(), offsets.ends(), offsets.committed()
                bounds = [self._at(offsets, hour, ends) for hour in hours] + [ends]
        except WaitedTooLong as error:
            raise LogError(str(error)) from None
        behind = sum(end - max(committed.get(partition, 0), starts[partition]) for partition, end in ends.items())
        events = [
            sum(after.values()) - sum(before.values()) if _is_kept(before, starts) else None
            for before, after in itertools.pairwise(bounds)
        ]
        return IntakeNumbers(tuple(events), max(0, behind))

    def _at(self, offsets: OffsetSource, hour: int, ends: Offsets) -> Offsets:
        known = self._past.get(hour)
        if known is not None and known.keys() == ends.keys():
            return known
        found = offsets.at(hour)
        if all(found[partition] < end for partition, end in ends.items()):  # else the next record may be its first
            self._past[hour] = found
        return found


def _is_kept(at: Offsets, starts: Offsets) -> bool:
    """Whether nothing has been removed that came after these offsets: they lie beyond what is gone."""
    return all(offset > starts[partition] or starts[partition] == 0 for partition, offset in at.items())


def from_embedded(settings: Settings, data: Path) -> IntakeCounter:
    @contextmanager
    def opened() -> Iterator[OffsetSource]:
        with closing(open_embedded_topics(settings, data)) as topics:
            yield _Embedded(topics, settings.kafka.topics.images, settings.kafka.group_id)

    return IntakeCounter(opened)


def from_kafka(settings: KafkaSettings) -> IntakeCounter:
    @contextmanager
    def opened() -> Iterator[OffsetSource]:
        with explained(settings):
            consumer = open_reader(settings, request_timeout_ms=ANSWER_MS, bootstrap_timeout_ms=ANSWER_MS)
            try:
                yield _Kafka(consumer, settings)
            finally:
                consumer.close(autocommit=False, timeout_ms=ANSWER_MS)

    return IntakeCounter(opened)


class _Embedded:
    def __init__(self, topics: SqliteTopics, topic: str, group_id: str) -> None:
        self._topics = topics
        self._topic = topic
        self._group_id = group_id

    def starts(self) -> Offsets:
        return self._topics.starts(self._topic)

    def ends(self) -> Offsets:
        return self._topics.ends(self._topic)

    def committed(self) -> Offsets:
        return self._topics.committed(self._group_id, self._topic)

    def at(self, seconds: float) -> Offsets:
        return self._topics.offsets_at(self._topic, int(seconds * 1000))


class _Kafka:
    def __init__(self, consumer: Any, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._settings = settings
        self._partitions = partitions_of(consumer, settings.topics.images, settings)
        self._ends = consumer.end_offsets(self._partitions, timeout_ms=ANSWER_MS)

    def starts(self) -> Offsets:
        return _ours(self._consumer.beginning_offsets(self._partitions, timeout_ms=ANSWER_MS))

    def ends(self) -> Offsets:
        return _ours(self._ends)

    def committed(self) -> Offsets:
        options = {**connection_options(self._settings), "bootstrap_timeout_ms": ANSWER_MS}
        with closing(KafkaAdminClient(**options, request_timeout_ms=ANSWER_MS)) as admin:
            groups = admin.list_group_offsets({self._settings.group_id: self._partitions})
        found = groups.get(self._settings.group_id, {})
        return _ours({partition: each.offset for partition, each in found.items() if each.offset >= 0})

    def at(self, seconds: float) -> Offsets:
        found = self._consumer.offsets_for_times(
            dict.fromkeys(self._partitions, int(seconds * 1000)), timeout_ms=ANSWER_MS
        )
        return _ours(
            {
                p: self._ends[p] if found.get(p) is None else min(found[p].offset, self._ends[p])
                for p in self._partitions
            }
        )


def _ours(theirs: Mapping[TopicPartition, int]) -> Offsets:
    return {Partition(partition.topic, partition.partition): offset for partition, offset in theirs.items()}
