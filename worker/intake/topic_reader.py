"""Topics as tools read them: outside every consumer group, from wherever they like."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from worker.intake.log import Partition, Record


class ReadBatch(Protocol):
    """Records, and where to read on: past them, and past what holds no record (Kafka's transaction markers)."""

    @property
    def records(self) -> Sequence[Record]: ...

    @property
    def positions(self) -> Mapping[Partition, int]: ...


class TopicReader(Protocol):
    """Reads committed records. All methods raise LogError. One thread at a time."""

    def ends(self, topic: str) -> dict[Partition, int]:
        """Where each partition ends at the moment."""

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> ReadBatch:
        """Some of the records from these positions on; waits a little for one."""

    def record(self, partition: Partition, offset: int) -> Record | None:
        """That very record; None when it is kept no more."""
