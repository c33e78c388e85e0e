"""Reading Kafka's topics outside every consumer group: for commands and the desk."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from worker.intake.kafka_connection import connection_options
from worker.intake.log import LogError, Partition, Record, TopicMissing
from worker.settings import KafkaSettings


def open_reader(settings: KafkaSettings, *, group_id: str | None = None, **more: Any) -> Any:
    """A consumer of committed records, without a group and without deserializers; `more` are further options."""
    return KafkaConsumer(
        group_id=group_id,
        enable_auto_commit=False,
        isolation_level="read_committed",
        max_partition_fetch_bytes=settings.max_message_bytes,
        fetch_max_wait_ms=100,
        allow_auto_create_topics=False,
        metrics_enabled=False,
        **{**connection_options(settings), **more},
    )


def partitions_of(consumer: Any, topic: str, settings: KafkaSettings) -> list[TopicPartition]:
    """The topic's partitions, in order. Raises LogError when there is no such topic."""
    numbers = consumer.partitions_for_topic(topic)
    if not numbers:
        raise no_topic(topic, settings)
    return [TopicPartition(topic, number) for number in sorted(numbers)]


def record_of(theirs: Any) -> Record:
    """kafka-python's record as ours."""
    return Record(
        Partition(theirs.topic, theirs.partition),
        theirs.offset,
        theirs.value,
        theirs.key,
        tuple(theirs.headers or ()),
        theirs.timestamp,
    )


def no_topic(topic: str, settings: KafkaSettings) -> TopicMissing:
    return TopicMissing(
        f"topic {topic} does not exist at {settings.bootstrap_servers}; make it with `sluice topics create`"
    )


@contextmanager
def explained(settings: KafkaSettings) -> Iterator[None]:
    """Turns an error of kafka-python into a LogError that says where, and what to do."""
    try:
        yield
    except KafkaError as error:
        raise LogError(
            f"Kafka at {settings.bootstrap_servers}: {error}; check kafka.bootstrap_servers and that the broker runs"
        ) from error
