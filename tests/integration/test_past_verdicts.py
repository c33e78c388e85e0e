"""The newest verdicts, read from a real broker and from the embedded log, for replaying a policy."""

import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer

from schemas import Route, Scores, Source, Verdict
from worker.intake.log import LogError, Output
from worker.review.http.past_verdicts import FRESH_SECONDS, PastVerdicts, from_embedded, from_kafka
from worker.settings import KafkaSettings, Settings, TopicSettings
from worker.wiring import open_embedded_topics


def verdict(number: int) -> Verdict:
    return Verdict(
        verdict_id=f"v{number}",
        event_id=f"e{number}",
        tenant="acme",
        occurred_at=None,
        judged_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=number),
        content_hash=None,
        status="scored",
        scores=Scores(quality=3.0),
        route=Route(action="pass", rule="default"),
        model="sha256:" + "a" * 64,
        policy="sha256:" + "b" * 64,
        source=Source(topic="images.in", partition=0, offset=number),
    )


VALUES = [verdict(number).model_dump_json().encode() for number in (2, 0, 1, 1)] + [b"of another version"]


def test_from_kafka_each_comes_once_in_order(kafka_server: Any, new_topic: Callable[..., str]) -> None:
    topic = new_topic(partitions=3)
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers)
    for value in VALUES:
        producer.send(topic, value=value)
    producer.flush()
    producer.close()
    kafka = KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topics=TopicSettings(verdicts=topic))
    past = PastVerdicts(from_kafka(Settings(kafka=kafka)), lambda: 0.0)
    assert [each.verdict_id for each in past.newest()] == ["v0", "v1", "v2"]


def test_a_topic_that_is_not_there_is_named(kafka_server: Any, unique_name: Any) -> None:
    kafka = KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topics=TopicSettings(verdicts="nowhere"))
    with pytest.raises(LogError, match="topic nowhere does not exist"):
        PastVerdicts(from_kafka(Settings(kafka=kafka)), lambda: 0.0).newest()


def test_from_the_embedded_log_and_again_after_a_while(tmp_path: Path) -> None:
    settings, now = Settings(), [0.0]
    past = PastVerdicts(from_embedded(settings, tmp_path), lambda: now[0])
    assert past.newest() == []
    with closing(open_embedded_topics(settings, tmp_path)) as topics:
        topics.append([Output(settings.kafka.topics.verdicts, value, b"k") for value in VALUES])
    assert past.newest() == []  # read a moment ago
    now[0] += FRESH_SECONDS + 1
    assert [each.verdict_id for each in past.newest()] == ["v0", "v1", "v2"]


class SilentBroker:
    """Accepts connections and never answers."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def close(self) -> None:
        self._listener.close()


def test_while_the_broker_is_silent_every_request_ends_in_time_and_says_why() -> None:
    with closing(SilentBroker()) as broker:
        read = from_kafka(Settings(kafka=KafkaSettings(bootstrap_servers=broker.address)))
        past = PastVerdicts(read, time.monotonic, read_seconds=2.0)
        with ThreadPoolExecutor(5) as pool:
            asked = [pool.submit(past.newest) for _ in range(5)]
            for each in asked:
                assert isinstance(each.exception(timeout=25), LogError)  # it waited for ever
