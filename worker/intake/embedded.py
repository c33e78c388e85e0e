"""Where the embedded log keeps its topics."""

from pathlib import Path

from worker.intake.sqlite_topics import SqliteTopics
from worker.settings import Settings

PARTITIONS = 4


def embedded_log(data: Path) -> Path:
    """The log's file below a data folder."""
    return data / "log.sqlite"


def open_embedded_topics(settings: Settings, data: Path) -> SqliteTopics:
    """The embedded log's topics, made where they do not exist. Raises LogError."""
    topics = SqliteTopics(embedded_log(data))
    topics.create(dict.fromkeys(settings.kafka.topics.names(), PARTITIONS))
    return topics
