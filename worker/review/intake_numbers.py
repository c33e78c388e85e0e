"""How the gate itself keeps up: events that came, and how many wait for a verdict. Counted from offsets."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient

from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_reading import explained, open_reader, partitions_of, record_of
from worker.intake.log import LogError, Partition, Record
from worker.intake.packs import record_count
from worker.intake.sqlite_topics import SqliteTopics
from worker.review.waiting import WaitedTooLong, held
from worker.settings import KafkaSettings, Settings, TopicSettings

HOUR: Final = 3600
ANSWER_MS: Final = 5000
"""Longest wait for one answer of the broker."""
SAMPLE_MS: Final = 1000
SAMPLE_RECORDS: Final = 100
"""So many records tell how many events the others hold."""
LOCK_SECONDS: Final = 10.0

Offsets = Mapping[Partition, int]


@dataclass(frozen=True, slots=True)
class IntakeNumbers:
    """`events` came in each of the hours asked for, in order; None for an hour whose records are kept no more.
    `behind`: events that no worker has finished, those that wait in the retry and surplus topics among them. It is an
    estimate where events lie in packs."""

    events: tuple[int | None, ...]
    behind: int


class OffsetSource(Protocol):
    """The topics that events come to, as offsets. Raises LogError."""

    def starts(self) -> Offsets: ...

    def ends(self) -> Offsets: ...

    def committed(self) -> Offsets:
        """The next offset that the group's workers have yet to finish, of the partitions where it has finished any."""
        ...

    def at(self, seconds: float) -> Offsets:
        """The first offset at or after a time; the end where there is none yet."""
        ...

    def moved(self) -> int:
        """Events that wait in the retry and surplus topics, about."""
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
                moved = offsets.moved()
        except WaitedTooLong as error:
            raise LogError(str(error)) from None
        behind = sum(end - position for position, end in _waiting(starts, ends, committed).values())
        events = [
            sum(after.values()) - sum(before.values()) if _is_kept(before, starts) else None
            for before, after in itertools.pairwise(bounds)
        ]
        return IntakeNumbers(tuple(events), behind + moved)

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


def _waiting(starts: Offsets, ends: Offsets, committed: Offsets) -> dict[Partition, tuple[int, int]]:
    """The first unfinished offset and the end of each partition where something waits."""
    positions = {partition: max(committed.get(partition, 0), start) for partition, start in starts.items()}
    return {partition: (positions[partition], end) for partition, end in ends.items() if end > positions[partition]}


def _events(waiting: Mapping[Partition, tuple[int, int]], records: Sequence[Record]) -> int:
    """How many events wait, about. `records`: the first of what waits, from as many partitions as have some.

    A pack holds many events, and the marker of a transaction takes an offset, too: so the events that an offset stands
    for are counted in the sample.
    """
    offsets = sum(end - position for position, end in waiting.values())
    last = {record.partition: record.offset for record in records}
    sampled = sum(offset + 1 - waiting[partition][0] for partition, offset in last.items())
    events = sum(record_count(record) for record in records)
    return round(offsets * events / sampled) if sampled else offsets


def from_embedded(settings: Settings, data: Path) -> IntakeCounter:
    @contextmanager
    def opened() -> Iterator[OffsetSource]:
        with closing(open_embedded_topics(settings, data)) as topics:
            yield _Embedded(topics, settings.kafka.topics, settings.kafka.group_id)

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
    def __init__(self, topics: SqliteTopics, names: TopicSettings, group_id: str) -> None:
        self._topics = topics
        self._names = names
        self._group_id = group_id

    def starts(self) -> Offsets:
        return _merged(self._topics.starts(name) for name in self._names.incoming)

    def ends(self) -> Offsets:
        return _merged(self._topics.ends(name) for name in self._names.incoming)

    def committed(self) -> Offsets:
        return _merged(self._topics.committed(self._group_id, name) for name in self._names.incoming)

    def at(self, seconds: float) -> Offsets:
        return _merged(self._topics.offsets_at(name, int(seconds * 1000)) for name in self._names.incoming)

    def moved(self) -> int:
        return sum(map(self._moved_to, self._names.deferred))

    def _moved_to(self, name: str) -> int:
        try:
            starts, ends = self._topics.starts(name), self._topics.ends(name)
        except LogError:  # no such topic: no worker has moved anything yet
            return 0
        waiting = _waiting(starts, ends, self._topics.committed(self._group_id, name))
        firsts = {partition: position for partition, (position, _) in waiting.items()}
        return _events(waiting, self._topics.read(firsts, max_records=SAMPLE_RECORDS))


class _Kafka:
    def __init__(self, consumer: Any, settings: KafkaSettings) -> None:
        self._consumer = consumer
        self._settings = settings
        self._partitions = [p for name in settings.topics.incoming for p in partitions_of(consumer, name, settings)]
        self._ends = consumer.end_offsets(self._partitions, timeout_ms=ANSWER_MS)

    def starts(self) -> Offsets:
        return _ours(self._consumer.beginning_offsets(self._partitions, timeout_ms=ANSWER_MS))

    def ends(self) -> Offsets:
        return _ours(self._ends)

    def committed(self) -> Offsets:
        return self._committed(self._partitions)

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

    def moved(self) -> int:
        topics = self._settings.topics
        partitions = [
            TopicPartition(name, number)
            for name in topics.deferred
            for number in self._consumer.partitions_for_topic(name) or ()
        ]
        if not partitions:
            return 0
        starts = _ours(self._consumer.beginning_offsets(partitions, timeout_ms=ANSWER_MS))
        ends = _ours(self._consumer.end_offsets(partitions, timeout_ms=ANSWER_MS))
        waiting = _waiting(starts, ends, self._committed(partitions))
        of_surplus = {p: bounds for p, bounds in waiting.items() if p.topic in topics.surplus_topics}
        retried = sum(end - position for p, (position, end) in waiting.items() if p not in of_surplus)
        return retried + (_events(of_surplus, self._sample(of_surplus)) if of_surplus else 0)

    def _sample(self, waiting: Mapping[Partition, tuple[int, int]]) -> list[Record]:
        partitions = {TopicPartition(*partition): position for partition, (position, _) in waiting.items()}
        self._consumer.assign(list(partitions))
        for partition, position in partitions.items():
            self._consumer.seek(partition, position)
        found = self._consumer.poll(timeout_ms=SAMPLE_MS, max_records=SAMPLE_RECORDS)
        return [record_of(record) for records in found.values() for record in records]

    def _committed(self, partitions: Sequence[TopicPartition]) -> Offsets:
        options = {**connection_options(self._settings), "bootstrap_timeout_ms": ANSWER_MS}
        with closing(KafkaAdminClient(**options, request_timeout_ms=ANSWER_MS)) as admin:
            groups = admin.list_group_offsets({self._settings.group_id: partitions})
        found = groups.get(self._settings.group_id, {})
        return _ours({partition: each.offset for partition, each in found.items() if each.offset >= 0})


def _merged(parts: Iterable[Offsets]) -> Offsets:
    return {partition: offset for part in parts for partition, offset in part.items()}


def _ours(theirs: Mapping[TopicPartition, int]) -> Offsets:
    return {Partition(partition.topic, partition.partition): offset for partition, offset in theirs.items()}
