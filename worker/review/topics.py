"""The topics as the desk needs them: append and know where it stands, read from anywhere. No consumer group."""

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Partition, Record
from worker.intake.sqlite_topics import SqliteTopics
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Batch:
    """Records, and where to read on: past them, and past what holds no record (Kafka's transaction markers)."""

    records: Sequence[Record]
    positions: Mapping[Partition, int]


class Topics(Protocol):
    """`append` and `record` may be called by many threads, `ends` and `read` by one. All raise LogError."""

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        """Returns when all are stored for good, with where each stands. When it raises, some may be stored."""
        ...

    def ends(self, topic: str) -> dict[Partition, int]:
        """Where each partition ends at the moment."""
        ...

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> Batch:
        """Some of the committed records from these positions on; waits a little for one."""
        ...

    def record(self, partition: Partition, offset: int) -> Record | None:
        """That very record; None when it is kept no more."""
        ...

    def close(self) -> None: ...


def open_topics(settings: Settings, data: Path | None) -> Topics:
    """Those on Kafka, or those of the embedded log below `data`. Raises LogError."""
    if data is not None:
        return EmbeddedTopics(settings, data)
    from worker.review.kafka_topics import KafkaTopics

    return KafkaTopics(settings.kafka)


class EmbeddedTopics:
    """Topics in one SQLite file."""

    def __init__(self, settings: Settings, data: Path) -> None:
        self._lock = threading.Lock()
        self._topics: SqliteTopics = open_embedded_topics(settings, data)
        self._reader: SqliteTopics = open_embedded_topics(settings, data)

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        with self._lock:
            return self._topics.append(outputs)

    def ends(self, topic: str) -> dict[Partition, int]:
        return self._reader.ends(topic)

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> Batch:
        records = self._reader.read(positions)
        if not records:
            time.sleep(wait_seconds)
            records = self._reader.read(positions)
        after = {record.partition: record.offset + 1 for record in records}
        return Batch(records, {**positions, **after})

    def record(self, partition: Partition, offset: int) -> Record | None:
        with self._lock:
            found = self._topics.read({partition: offset}, max_records=1)
        return found[0] if found and found[0].offset == offset else None

    def close(self) -> None:
        self._topics.close()
        self._reader.close()
