"""What the reader does when Kafka no longer has the record that comes next."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from worker.intake.log import Gap, LogError, Partition
from worker.intake.lost_records import LostRange, is_another_topic, note_of, topic_in
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

ASK_SECONDS = 10.0
REMIND_SECONDS = 60.0
OFFSETS_MS = 10_000


class GapKeeper:
    """Stops a partition at a gap until somebody accepts the loss, or goes on where the settings say so.

    It also notices a topic that was deleted and created again. The broker would take an offset of the old one for one
    of the new, once that has grown so far, and what lies below it would never be judged. So the topic's id is committed
    with each offset, and compared when partitions are assigned and while they are read.

    Belongs to the reader's thread, but for `health_problems` and `note`. `accepted` asks which positions may be left.
    """

    def __init__(
        self,
        consumer: Any,
        settings: KafkaSettings,
        accepted: Callable[[KafkaSettings], Mapping[Partition, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._accepted = accepted
        self._clock = clock
        self._stopped: dict[TopicPartition, LostRange] = {}
        self._committed_ids: dict[TopicPartition, str | None] = {}
        """The topic that a partition's offsets belong to, as commits note it."""
        self._read_ids: dict[TopicPartition, str | None] = {}
        """The topic that a partition is read from."""
        self._delivered: set[TopicPartition] = set()
        """Partitions of which records came since their assignment."""
        self._in_new_topics: dict[TopicPartition, int] = {}
        """Assigned partitions whose committed offset belongs to a deleted topic."""
        consumer.watch_committed(self._compare)
        self._ask_at = 0.0
        self._remind_at = 0.0

    @property
    def stopped(self) -> frozenset[Partition]:
        """Partitions that must stay paused."""
        return frozenset(Partition(*partition) for partition in self._stopped)

    def health_problems(self) -> tuple[str, ...]:
        return tuple(
            f"{lost}; `sluice topics accept-loss` lets the worker go on without them"
            for lost in list(self._stopped.values())
        )

    def note(self, partition: Partition) -> str:
        """What to commit beside the partition's offset. From any thread."""
        return note_of(self._committed_ids.get(TopicPartition(*partition)))

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Reads partitions that the group has committed nothing of from their first record."""
        partitions = list(partitions)
        for partition in partitions:
            self._set_topic(partition, self._consumer.topic_id(partition.topic))
        self._consumer.seek_to_beginning(*partitions)

    def delivered(self, partitions: Iterable[TopicPartition]) -> None:
        """Records of these came."""
        self._delivered.update(partitions)

    def new_topics(self) -> tuple[Gap, ...]:
        """Handles partitions whose topic was deleted and created again. Returns what was skipped. Raises KafkaError."""
        found, self._in_new_topics = self._in_new_topics, {}
        for partition, read in list(self._read_ids.items()):
            present = self._consumer.topic_id(partition.topic)
            if is_another_topic(read, present):
                self._read_ids[partition] = present
                position = self._consumer.position_if_known(partition)
                if position is not None and partition in self._consumer.assignment():
                    found[partition] = position
        if not found:
            return ()
        log.warning("topic_created_again", partitions=[f"{p.topic}/{p.partition}" for p in sorted(found)])
        return self._handle(found, is_new_topic=True)

    def _compare(self, offsets: Mapping[TopicPartition, Any]) -> None:
        """On the consumer's network thread, while the reader waits for it."""
        for partition, committed in offsets.items():
            self._delivered.discard(partition)
            noted, present = topic_in(committed.metadata), self._consumer.topic_id(partition.topic)
            if is_another_topic(noted, present):
                self._consumer.pause(partition)  # nothing may be fetched from there
                self._in_new_topics[partition] = committed.offset
                self._committed_ids[partition], self._read_ids[partition] = noted, present
            else:
                self._set_topic(partition, present)

    def _set_topic(self, partition: TopicPartition, topic_id: str | None) -> None:
        self._committed_ids[partition] = self._read_ids[partition] = topic_id

    def out_of_range(self, positions: Mapping[TopicPartition, int]) -> tuple[Gap, ...]:
        """Handles positions that the partition does not have. Returns what was skipped. Raises KafkaError."""
        return self._handle(positions, is_new_topic=False)

    def _handle(self, positions: Mapping[TopicPartition, int], *, is_new_topic: bool) -> tuple[Gap, ...]:
        partitions = list(positions)
        first = self._consumer.beginning_offsets(partitions, timeout_ms=OFFSETS_MS)
        end = self._consumer.end_offsets(partitions, timeout_ms=OFFSETS_MS)
        gaps = []
        for partition, position in positions.items():
            lost = LostRange(Partition(*partition), position, first[partition], end[partition], is_new_topic)
            if not is_new_topic and first[partition] <= position <= end[partition]:
                continue  # it came back meanwhile
            if self._settings.lost_records == "continue":
                gaps.append(self._skip(partition, lost))
            else:
                self._stopped[partition] = lost
                self._ask_at = 0.0
        return tuple(gaps)

    def truncated(self, offsets: Mapping[TopicPartition, Any]) -> tuple[Gap, ...]:
        """Goes on where the log was cut: what lay behind was judged already. Raises KafkaError."""
        for partition, offset in offsets.items():
            if offset is not None:
                log.warning("log_truncated", partition=f"{partition.topic}/{partition.partition}", offset=offset.offset)
                self._consumer.seek(partition, offset.offset)
        positions = {
            partition: self._consumer.position_if_known(partition)
            for partition, offset in offsets.items()
            if offset is None
        }
        return self.out_of_range({partition: at for partition, at in positions.items() if at is not None})

    def turn(self) -> tuple[Gap, ...]:
        """Asks whether a loss was accepted, now and then; returns what was skipped because of it."""
        assigned = self._consumer.assignment()
        for partition in self._stopped.keys() - assigned:
            del self._stopped[partition]
        now = self._clock()
        if not self._stopped or now < self._ask_at:
            return ()
        self._ask_at = now + ASK_SECONDS
        if now >= self._remind_at:
            self._remind_at = now + REMIND_SECONDS
            log.error("records_lost", stopped=self.health_problems())
        try:
            accepted = self._accepted(self._settings)
        except (KafkaError, LogError) as error:
            log.warning("accepted_loss_unknown", error=str(error))
            return ()
        return tuple(
            self._skip(partition, self._stopped.pop(partition))
            for partition, lost in list(self._stopped.items())
            if accepted.get(lost.partition) == lost.position
        )

    def _skip(self, partition: TopicPartition, lost: LostRange) -> Gap:
        log.error("records_skipped", lost=str(lost), goes_on_at=lost.first)
        if partition not in self._delivered:
            # Otherwise records of the old topic may yet be committed. The first record of the new one makes the member
            # start again, as its offset is lower, and then nothing is under way.
            self._set_topic(partition, self._consumer.topic_id(partition.topic))
        self._consumer.seek_to_beginning(partition)  # retention may have gone further meanwhile
        return Gap(lost.partition, lost.position, max(lost.position, lost.first))
