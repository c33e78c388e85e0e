"""The events to judge again, and the run's name, which is the same for the same request."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kafka import OffsetAndMetadata, TopicPartition

from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_reading import explained, open_reader, partitions_of
from worker.intake.log import Partition
from worker.settings import KafkaSettings, Settings


@dataclass(frozen=True, slots=True)
class ReplayRequest:
    """Events whose records came from `since` on and before `until`, judged by a model and a policy (digests)."""

    topic: str
    since: datetime
    until: datetime
    model: str
    policy: str

    @property
    def run(self) -> str:
        """12 hexadecimal digits; the same request is the same run, which goes on where it stopped."""
        parts = [self.topic, _milliseconds(self.since), _milliseconds(self.until), self.model, self.policy]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class ReplayWindow:
    """By partition: where the request begins, where it ends, and up to where the run's group has committed."""

    starts: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    committed: Mapping[Partition, int]
    verdicts: Mapping[Partition, int]
    """Where the verdicts begin that were written since the request's first event."""

    @property
    def total(self) -> int:
        """Offsets in the window; a few more than records where Kafka keeps transaction markers."""
        return sum(end - self.starts[partition] for partition, end in self.ends.items())


def open_window(settings: Settings, data: Path | None, request: ReplayRequest, group: str) -> ReplayWindow:
    """The window of a request. A group that has not begun is put at its start. Raises LogError."""
    if data is not None:
        return _embedded_window(settings, data, request, group)
    with explained(settings.kafka):
        return _kafka_window(settings.kafka, request, group)


def finish(settings: Settings, data: Path | None, group: str) -> None:
    """Lets the embedded log drop records that the run has read; on Kafka a group's offsets expire. Raises LogError."""
    if data is not None:
        with closing(open_embedded_topics(settings, data)) as topics:
            topics.finish_group(group, settings.kafka.topics.images)


def _embedded_window(settings: Settings, data: Path, request: ReplayRequest, group: str) -> ReplayWindow:
    with closing(open_embedded_topics(settings, data)) as topics:
        starts = topics.offsets_at(request.topic, _milliseconds(request.since))
        ends = topics.offsets_at(request.topic, _milliseconds(request.until))
        topics.start_group(group, starts)
        verdicts = topics.offsets_at(settings.kafka.topics.verdicts, _milliseconds(request.since))
        return ReplayWindow(starts, ends, topics.committed(group, request.topic), verdicts)


def _kafka_window(settings: KafkaSettings, request: ReplayRequest, group: str) -> ReplayWindow:
    consumer = open_reader(settings, group_id=group)
    try:
        partitions = partitions_of(consumer, request.topic, settings)
        partitions_of(consumer, settings.topics.replays, settings)  # must exist
        starts = _offsets_at(consumer, partitions, request.since)
        ends = _offsets_at(consumer, partitions, request.until)
        verdicts = _offsets_at(consumer, partitions_of(consumer, settings.topics.verdicts, settings), request.since)
        consumer.assign(partitions)
        committed = {partition: consumer.committed(partition) for partition in partitions}
        if absent := [partition for partition, offset in committed.items() if offset is None]:
            consumer.commit({partition: OffsetAndMetadata(starts[partition], "", -1) for partition in absent})
        begun = {partition: starts[partition] if at is None else at for partition, at in committed.items()}
        return ReplayWindow(_ours(starts), _ours(ends), _ours(begun), _ours(verdicts))
    finally:
        consumer.close(autocommit=False)


def _offsets_at(consumer: Any, partitions: Sequence[TopicPartition], time: datetime) -> dict[TopicPartition, int]:
    """Of each partition the first offset from then on; its end where nothing came since."""
    consumer.assign(partitions)
    last = consumer.end_offsets(partitions)
    found = consumer.offsets_for_times(dict.fromkeys(partitions, _milliseconds(time)))
    return {p: last[p] if found.get(p) is None else found[p].offset for p in partitions}


def _ours(offsets: Mapping[TopicPartition, int]) -> dict[Partition, int]:
    return {Partition(partition.topic, partition.partition): offset for partition, offset in offsets.items()}


def _milliseconds(time: datetime) -> int:
    return int(time.timestamp() * 1000)
