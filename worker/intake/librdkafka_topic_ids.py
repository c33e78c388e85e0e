"""The ids of topics (KIP-516) as librdkafka tells them; a topic that is deleted and created again has another one."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any, Final
from uuid import UUID

import structlog
from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from worker.intake.librdkafka_options import METADATA_MS, Options

log = structlog.get_logger(__name__)

HALF: Final = 2**64


class TopicIds:
    """Asks for the ids now and then, without waiting. For one thread."""

    def __init__(self, options: Options, topics: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self._admin = AdminClient(options)
        self._topics = TopicCollection(list(topics))
        self._clock = clock
        self._ids: dict[str, str] = {}
        self.partitions: dict[str, int] = {}
        """How many partitions each topic has, as far as it is known."""
        self._asked: dict[str, Future[Any]] = {}
        self._ask_at = 0.0

    def of(self, topic: str) -> str | None:
        """None where the brokers give none."""
        return self._ids.get(topic)

    def wait(self, seconds: float) -> None:
        """Asks, and waits for the answer, so long at most."""
        self.turn()
        wait(self._asked.values(), seconds)
        self.turn()

    def turn(self) -> None:
        """Takes up what was answered, and asks again when it is time."""
        if self._asked and all(answer.done() for answer in self._asked.values()):
            for topic, answer in self._asked.items():
                self._take(topic, answer)
            self._asked = {}
        now = self._clock()
        if not self._asked and now >= self._ask_at:
            self._ask_at = now + METADATA_MS / 1000
            self._asked = self._admin.describe_topics(self._topics)

    def _take(self, topic: str, answer: "Future[Any]") -> None:
        try:
            described = answer.result(0)
        except KafkaException as error:  # a topic that is being created again; the reader hears of all else itself
            log.info("topic_id_unknown", topic=topic, error=error.args[0].str())
            return
        self.partitions[topic] = len(described.partitions)
        found = described.topic_id
        value = found and (found.get_most_significant_bits() % HALF << 64 | found.get_least_significant_bits() % HALF)
        if value:
            self._ids[topic] = str(UUID(int=value))
