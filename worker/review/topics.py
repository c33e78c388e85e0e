"""The topics as the desk needs them: append and know where it stands, read from anywhere. No consumer group."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from worker.intake.log import Output, Partition, Record


@dataclass(frozen=True, slots=True)
class TopicBatch:
    """Records, and where to read on: past them, and past what holds no record (Kafka's transaction markers)."""

    records: Sequence[Record]
    positions: Mapping[Partition, int]


class Topics(Protocol):
    """`append` and `record` may be called by many threads, the other methods by one. All raise LogError."""

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        """Returns when all are stored for good, with where each stands. When it raises, some may be stored."""
        ...

    def ends(self, topic: str) -> dict[Partition, int]:
        """Where each partition ends at the moment."""
        ...

    def starts(self, topic: str) -> dict[Partition, int]:
        """The offset of each partition's oldest record that is kept; its end where none is."""
        ...

    def trim(self, starts: Mapping[Partition, int]) -> None:
        """Deletes the records before these offsets. Idempotent."""
        ...

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> TopicBatch:
        """Some of the committed records from these positions on; waits a little for one."""
        ...

    def record(self, partition: Partition, offset: int) -> Record | None:
        """That very record; None when it is kept no more."""
        ...

    def close(self) -> None: ...
