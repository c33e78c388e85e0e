"""What the reader does when Kafka no longer has the record that comes next."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from worker.intake.log import Gap, LogError, Partition
from worker.intake.lost_records import LostRange
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

ASK_SECONDS = 10.0
REMIND_SECONDS = 60.0
OFFSETS_MS = 10_000


class GapKeeper:
    """Stops a partition at a gap until somebody accepts the loss, or goes on where the settings say so.

    Belongs to the reader's thread, but for `health_problems`. `accepted` asks which positions may be left.
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

    def begin(self, partitions: Iterable[TopicPartition]) -> None:
        """Reads partitions that the group has committed nothing of from their first record."""
        self._consumer.seek_to_beginning(*partitions)

    def out_of_range(self, positions: Mapping[TopicPartition, int]) -> tuple[Gap, ...]:
        """Handles positions that the partition does not have. Returns what was skipped. Raises KafkaError."""
        partitions = list(positions)
        first = self._consumer.beginning_offsets(partitions, timeout_ms=OFFSETS_MS)
        end = self._consumer.end_offsets(partitions, timeout_ms=OFFSETS_MS)
        gaps = []
        for partition, position in positions.items():
            lost = LostRange(Partition(*partition), position, first[partition], end[partition])
            if first[partition] <= position <= end[partition]:
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
        self._consumer.seek_to_beginning(partition)  # retention may have gone further meanwhile
        return Gap(lost.partition, lost.position, max(lost.position, lost.first))
