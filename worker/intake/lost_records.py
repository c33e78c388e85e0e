"""Records that left the log before they were judged: which, and who has accepted that.

An acceptance is an offset that is committed in a group beside the worker's own, `<group_id>.accepted-loss`: the offset
that the worker cannot go on from. So it lives in Kafka, and can be given while workers run.
"""

import getpass
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from kafka import OffsetAndMetadata, TopicPartition
from kafka.admin import OffsetSpec
from kafka.errors import KafkaError, NoError

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError, Partition
from worker.settings import KafkaSettings

_NOTE = "topic-id:"


def note_of(topic_id: str | None) -> str:
    """What is committed beside an offset: the id of the topic that the offset belongs to (KIP-516). Empty where the
    brokers give topics no ids, which came with Kafka 2.8."""
    return "" if topic_id is None else f"{_NOTE}{topic_id}"


def topic_in(note: str | None) -> str | None:
    """The topic's id in what was committed beside an offset; None where nobody noted one."""
    if not (note and note.startswith(_NOTE)):
        return None
    return note.removeprefix(_NOTE).rstrip("\0")  # confluent-kafka 2.16 also commits the end mark of C's strings


class LostRange(NamedTuple):
    """A partition whose group's offset, `position`, lies outside of its records, which are `first` to `end` - 1, or
    belongs to an earlier topic of the same name (`is_new_topic`).

    Below `first`, retention was faster than the workers, or somebody deleted records; above `end`, the topic was
    deleted and created again, or its end was cut off.
    """

    partition: Partition
    position: int
    first: int
    end: int
    is_new_topic: bool = False

    @property
    def lost(self) -> int:
        """Records that will never be read; those of a topic that was deleted cannot be counted."""
        return 0 if self.is_new_topic else max(0, self.first - self.position)

    def __str__(self) -> str:
        place = f"{self.partition.topic}/{self.partition.number}"
        if self.is_new_topic:
            return (
                f"{place}: the topic was deleted and created again after the group had read to offset {self.position}; "
                f"what came behind is lost, and the new topic, offsets {self.first} to {self.end - 1}, is unread"
            )
        if self.position < self.first:
            return (
                f"{place}: offsets {self.position} to {self.first - 1} were deleted before they were judged "
                f"({self.lost} records)"
            )
        return (
            f"{place}: the group has read to offset {self.position}, but the partition ends at {self.end}: the topic "
            "was deleted and created again, or its end was cut off"
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
        partition: offset
        for partition, offset in admin.list_group_offsets(group)[group].items()
        if partition.topic in topics and offset.offset >= 0
    }
    if not committed:
        return ()
    first = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.EARLIEST))
    end = admin.list_partition_offsets(dict.fromkeys(committed, OffsetSpec.LATEST))
    ids = _topic_ids(admin, {partition.topic for partition in committed})
    found = (
        LostRange(
            Partition(*partition),
            offset.offset,
            first[partition].offset,
            end[partition].offset,
            is_another_topic(topic_in(offset.metadata), ids.get(partition.topic)),
        )
        for partition, offset in sorted(committed.items())
    )
    return tuple(each for each in found if each.is_new_topic or not each.first <= each.position <= each.end)


def is_another_topic(noted: str | None, present: str | None) -> bool:
    """Whether both ids are known and differ."""
    return noted is not None and present is not None and noted != present


def _topic_ids(admin: Any, topics: Collection[str]) -> Mapping[str, str]:
    described = admin.describe_topics(sorted(topics))
    return {topic["name"]: str(topic["topic_id"]) for topic in described if topic.get("topic_id")}


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
