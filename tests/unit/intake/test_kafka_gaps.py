"""A topic that was deleted and created again is noticed by its id, whenever that happens."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition

from worker.intake.kafka_gaps import GapKeeper
from worker.intake.log import Gap, Partition
from worker.intake.lost_records import LostRange
from worker.settings import KafkaSettings

HERE = TopicPartition("images.in", 0)
OURS = Partition("images.in", 0)


class Consumer:
    """A consumer of one partition, whose log is `first` to `end`."""

    def __init__(self) -> None:
        self.id: str | None = "old"
        self.position = 0
        self.end = 10
        self.pauses: list[TopicPartition] = []
        self._watch: Callable[[Mapping[TopicPartition, Any]], None] = lambda _: None

    def watch_committed(self, watch: Callable[[Mapping[TopicPartition, Any]], None]) -> None:
        self._watch = watch

    def assign(self, offset: int, note: str) -> None:
        self.position = offset
        self._watch({HERE: OffsetAndMetadata(offset, note, -1)})

    def topic_id(self, _: str) -> str | None:
        return self.id

    def pause(self, partition: TopicPartition) -> None:
        self.pauses.append(partition)

    def assignment(self) -> set[TopicPartition]:
        return {HERE}

    def position_if_known(self, _: TopicPartition) -> int:
        return self.position

    def beginning_offsets(self, partitions: list[TopicPartition], **_: object) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    def end_offsets(self, partitions: list[TopicPartition], **_: object) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, self.end)

    def seek_to_beginning(self, *_: TopicPartition) -> None:
        self.position = 0


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


def keeper(consumer: Consumer, accepted: Mapping[Partition, int] | None = None, **settings: str) -> GapKeeper:
    return GapKeeper(consumer, KafkaSettings.model_validate(settings), lambda _: accepted or {}, lambda: 0.0)


def test_commits_note_the_topic_that_the_offsets_belong_to(consumer: Consumer) -> None:
    gaps = keeper(consumer)
    consumer.assign(3, "")
    assert gaps.note(OURS) == "topic-id:old"
    assert gaps.new_topics() == ()


def test_an_offset_of_a_deleted_topic_is_not_read_from_though_the_new_one_has_it(consumer: Consumer) -> None:
    gaps = keeper(consumer, accepted={OURS: 3})
    consumer.id = "new"
    consumer.assign(3, "topic-id:old")
    assert consumer.pauses == [HERE], "before anything is fetched"
    assert gaps.new_topics() == ()
    assert gaps.stopped == {OURS}
    assert "deleted and created again after the group had read to offset 3" in gaps.health_problems()[0]

    assert gaps.turn() == (Gap(OURS, 3, 3),), "somebody has accepted the loss"
    assert consumer.position == 0
    assert gaps.note(OURS) == "topic-id:new"


def test_a_topic_that_is_created_again_under_a_reader_is_noticed(consumer: Consumer) -> None:
    gaps = keeper(consumer)
    consumer.assign(3, "topic-id:old")
    gaps.delivered([HERE])
    consumer.position = 7
    consumer.id = "new"
    assert gaps.new_topics() == ()
    assert gaps.stopped == {OURS}
    assert gaps.note(OURS) == "topic-id:old", "what is under way is the old topic's"
    assert gaps.new_topics() == (), "once"


def test_records_under_way_are_committed_for_the_old_topic_also_after_it_was_left(consumer: Consumer) -> None:
    gaps = keeper(consumer, lost_records="continue")
    consumer.assign(3, "topic-id:old")
    gaps.delivered([HERE])
    consumer.position = 7
    consumer.id = "new"
    assert gaps.new_topics() == (Gap(OURS, 7, 7),)
    assert consumer.position == 0
    assert gaps.note(OURS) == "topic-id:old"
    assert gaps.new_topics() == (), "once"
    consumer.assign(9, "topic-id:old")  # the member starts again at the first record of the new topic
    assert gaps.new_topics() == (Gap(OURS, 9, 9),)
    assert gaps.note(OURS) == "topic-id:new"


@pytest.mark.parametrize(("note", "topic_id"), [("", "new"), ("somebody else's", "new"), ("topic-id:old", None)])
def test_where_an_id_is_not_known_the_offset_counts(consumer: Consumer, note: str, topic_id: str | None) -> None:
    gaps = keeper(consumer)
    consumer.id = topic_id
    consumer.assign(3, note)
    assert gaps.new_topics() == ()
    assert gaps.stopped == frozenset()
    assert consumer.pauses == []


def test_an_id_that_the_other_client_has_noted_is_the_same(consumer: Consumer) -> None:
    gaps = keeper(consumer)
    consumer.assign(3, "topic-id:old\0")  # as confluent-kafka 2.16 commits it
    assert gaps.new_topics() == ()
    assert gaps.stopped == frozenset()


def test_no_record_of_a_new_topic_counts_as_lost() -> None:
    assert LostRange(OURS, 3, 5, 10, is_new_topic=True).lost == 0
    assert LostRange(OURS, 3, 5, 10).lost == 2
