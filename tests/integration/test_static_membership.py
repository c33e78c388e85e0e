"""A worker with a name of its own in the group: who has it, and what becomes of it when the worker stops."""

import time
from collections.abc import Callable

import pytest
from kafka.admin import KafkaAdminClient

from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic
from worker.intake.kafka_log import KafkaLog
from worker.intake.log import LogError
from worker.settings import KafkaSettings, TelemetrySettings, TopicSettings

PATIENCE_SECONDS = 60.0
SESSION_SECONDS = 20.0
"""So long that what comes sooner has not waited for it."""

Opener = Callable[[], KafkaLog]


@pytest.fixture
def settings(kafka_server: KafkaServer, new_topic: NewTopic, unique_name: str) -> KafkaSettings:
    names = {name: new_topic(2) for name in ("images", "verdicts", "review", "dead")}
    return KafkaSettings(
        bootstrap_servers=kafka_server.bootstrap_servers,
        group_id=unique_name,
        group_instance_id="worker-1",
        session_timeout_seconds=SESSION_SECONDS,
        topics=TopicSettings(**names),
    )


def wait_for_partitions(log: KafkaLog) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not log.poll(0.1).assigned:
        assert time.monotonic() < deadline, "no partitions were assigned"


def test_two_workers_with_one_name_are_told_of_it(settings: KafkaSettings) -> None:
    first = KafkaLog(settings, TelemetrySettings(), topics=[settings.topics.images])
    wait_for_partitions(first)
    second = KafkaLog(settings, TelemetrySettings(), topics=[settings.topics.images])
    wait_for_partitions(second)
    with pytest.raises(LogError, match=r"another worker of this group uses kafka\.group_instance_id worker-1"):
        first.poll(PATIENCE_SECONDS)  # nothing else can happen: the topic is empty
    first.close()
    second.close()


def test_a_worker_that_stops_gives_up_its_name_at_once(settings: KafkaSettings) -> None:
    log = KafkaLog(settings, TelemetrySettings(), topics=[settings.topics.images])
    wait_for_partitions(log)
    log.close()
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        group = admin.describe_groups([settings.group_id])[settings.group_id]
    assert group["members"] == []
