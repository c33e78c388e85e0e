"""Opens the desk's topics where the settings say they are."""

from pathlib import Path

from worker.review.embedded_topics import EmbeddedTopics
from worker.review.topics import Topics
from worker.settings import Settings


def open_topics(settings: Settings, data: Path | None) -> Topics:
    """Those on Kafka, or those of the embedded log below `data`. Raises LogError."""
    if data is not None:
        return EmbeddedTopics(settings, data)
    from worker.review.kafka_topics import KafkaTopics  # kafka-python takes a while to import

    return KafkaTopics(settings.kafka)
