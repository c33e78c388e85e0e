"""The stream on the embedded log."""

import time
from collections.abc import Iterator
from pathlib import Path

from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Record
from worker.intake.sqlite_topics import SqliteTopics
from worker.settings import Settings

BATCH = 200
"""Events appended at once; every append waits for the disk."""

WAIT_SECONDS = 0.1


class EmbeddedStream:
    """Topics below a data folder; they are made when they do not exist."""

    def __init__(self, settings: Settings, data: Path) -> None:
        self._images = settings.kafka.topics.images
        self._topics: SqliteTopics = open_embedded_topics(settings, data)
        self._pending: list[Output] = []

    def publish(self, key: bytes, value: bytes) -> None:
        self._pending.append(Output(self._images, value, key))
        if len(self._pending) >= BATCH:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._topics.append(self._pending)
            self._pending = []

    def read(self, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Record]:
        ends = self._topics.ends(topic)
        positions = dict.fromkeys(ends, 0) if from_beginning else dict(ends)
        while True:
            records = self._topics.read(positions)
            for record in records:
                positions[record.partition] = record.offset + 1
                if follow or record.offset < ends[record.partition]:
                    yield record
            if not follow and all(positions[partition] >= end for partition, end in ends.items()):
                return
            if not records:
                time.sleep(WAIT_SECONDS)

    def close(self) -> None:
        self._topics.close()
