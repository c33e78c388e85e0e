"""Where actions on dead letters are written: the embedded log, or Kafka."""

from collections.abc import Callable, Sequence
from pathlib import Path

from worker.dead_letters.actions import ActionWriter
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import Settings


def open_writer(settings: Settings, data: Path | None) -> ActionWriter:
    """On Kafka, or on the embedded log below `data`. Raises LogError."""
    if data is not None:
        return EmbeddedWriter(settings, data)
    from worker.dead_letters.kafka_writer import KafkaWriter

    return KafkaWriter(settings.kafka)


class EmbeddedWriter:
    """One transaction of SQLite, which holds the write lock from before `prepare` reads."""

    def __init__(self, settings: Settings, data: Path) -> None:
        self._topics = open_embedded_topics(settings, data)

    def write(self, prepare: Callable[[], Sequence[Output]]) -> None:
        self._topics.append_prepared(prepare)

    def close(self) -> None:
        self._topics.close()
