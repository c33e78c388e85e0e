"""The desk's topics in the embedded log: one SQLite file."""

import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Partition, Record
from worker.intake.sqlite_topics import SqliteTopics
from worker.review.topics import TopicBatch
from worker.settings import Settings


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

    def starts(self, topic: str) -> dict[Partition, int]:
        return self._reader.starts(topic)

    def trim(self, starts: Mapping[Partition, int]) -> None:
        with self._lock:
            self._topics.trim(starts)

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> TopicBatch:
        ends = {p: end for topic in {p.topic for p in positions} for p, end in self._reader.ends(topic).items()}
        records = self._reader.read(positions)
        if not records:
            time.sleep(wait_seconds)
            records = self._reader.read(positions)
        after = {record.partition: record.offset + 1 for record in records}
        # A partition without a record below its former end: what stood there has been deleted.
        past = {p: max(at, ends[p]) for p, at in positions.items() if p not in after}
        return TopicBatch(records, {**past, **after})

    def record(self, partition: Partition, offset: int) -> Record | None:
        with self._lock:
            found = self._topics.read({partition: offset}, max_records=1)
        return found[0] if found and found[0].offset == offset else None

    def close(self) -> None:
        self._topics.close()
        self._reader.close()
