"""Records that left the log before they were judged: which, and who has accepted that.

An acceptance is an offset that is committed in a group beside the worker's own, `<group_id>.accepted-loss`: the offset
that the worker cannot go on from. So it lives in Kafka, and can be given while workers run.
"""

import getpass
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, NoError

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError, Partition
from worker.settings import KafkaSettings


class LostRange(NamedTuple):
    """A partition whose group's offset, `position`, lies outside of its records, which are `first` to `end` - 1.

    Below `first`, retention was faster than the workers, or somebody deleted records; above `end`, the topic was made
    anew or its end was cut off.
    """

    partition: Partition
    position: int
    first: int
    end: int

    @property
    def lost(self) -> int:
        """Records that will never be read; those of a topic that was made anew cannot be counted."""
        return max(0, self.first - self.position)

    def __str__(self) -> str:
        place = f"{self.partition.topic}/{self.partition.number}"
        if self.position < self.first:
            return (
                f"{place}: offsets {self.position} to {self.first - 1} were deleted before they were judged "
                f"({self.lost} records)"
            )
        return (
            f"{place}: the group has read to offset {self.position}, but the partition ends at {self.end}: the topic "
            "was made anew, or its end was cut off"
        )


def accepting_group(settings: KafkaSettings) -> str:
    return f"{settings.group_id}.accepted-loss"


def find_lost(settings: KafkaSettings) -> tuple[LostRange, ...]:
    """The partitions that workers read from which records are lost to the group. Raises LogError."""
    with admin_client(settings) as admin:
        try:
            return lost_ranges(admin, settings)
        except KafkaError as error:
            raise LogError(f"Kafka at {settings.bootstrap_servers} did not say what is lost: {error}") from error


def lost_ranges(admin: Any, settings: KafkaSettings) -> tuple[LostRange, ...]:
    """As `find_lost`, with a client. Raises KafkaError."""
    group, topics = settings.group_id, settings.topics.judged
    committed = {
        partition: offset.offset
        for partition, offset in admin.list_group_offsets(group)[group].items()
        if partition.topic in topics and offset.offset >= 0
    }
    if not committed:
        return ()
    first = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.EARLIEST))
    end = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.LATEST))
    return tuple(
        LostRange(Partition(*partition), position, first[partition].offset, end[partition].offset)
        for partition, position in sorted(committed.items())
        if not first[partition].offset <= position <= end[partition].offset
    )


def accept(settings: KafkaSettings, ranges: Sequence[LostRange]) -> None:
    """Lets the workers go on from what is there, and keeps who said so. Raises LogError."""
    note = f"{getpass.getuser()} {datetime.now(UTC).isoformat(timespec='seconds')}"
    offsets = {TopicPartition(*lost.partition): OffsetAndMetadata(lost.position, note, -1) for lost in ranges}
    group = accepting_group(settings)
    with admin_client(settings) as admin:
        try:
            answers = admin.alter_group_offsets(group, offsets)
        except KafkaError as error:
            answers = dict.fromkeys(offsets, type(error))
    refused = {answer.__name__ for answer in answers.values() if answer is not NoError}
    if refused:
        raise LogError(
            f"Kafka did not take the acceptance ({', '.join(sorted(refused))}): it is kept as offsets of the group "
            f"{group}, so Read on that group is needed"
        )


def accepted_positions(settings: KafkaSettings) -> Mapping[Partition, int]:
    """The positions that somebody has let the workers leave. Raises LogError and KafkaError."""
    group = accepting_group(settings)
    with admin_client(settings) as admin:
        found = admin.list_group_offsets(group)[group]
    return {Partition(*partition): offset.offset for partition, offset in found.items()}
