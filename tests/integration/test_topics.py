"""Creating the topics on a real cluster."""

import pytest
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from ops.dev.ports import free_ports
from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic
from worker.intake import kafka_connection
from worker.intake import topics as topics_module
from worker.intake.topics import TopicsError, create_topics
from worker.settings import KafkaSettings, TopicSettings

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def settings(kafka_server: KafkaServer, unique_name: str) -> KafkaSettings:
    kinds = TopicSettings.model_fields
    return KafkaSettings(
        bootstrap_servers=kafka_server.bootstrap_servers,
        topics=TopicSettings(**{kind: f"{unique_name}.{kind}" for kind in kinds}),
        max_message_bytes=3_000_000,
    )


def _configs(settings: KafkaSettings, topic: str) -> dict[str, str]:
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        described = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)], config_filter="all")
    return {name: entry["value"] for name, entry in described["topic"][topic].items()}


def test_topics_are_made_with_their_retention_and_compaction(settings: KafkaSettings) -> None:
    names = settings.topics
    report = create_topics(settings, partitions=3, replication_factor=1)

    assert set(report.created) == set(names.model_dump().values())
    assert report.existing == ()
    assert report.differences == ()
    expected = {
        names.images: ("delete", str(7 * DAY_MS)),
        names.verdicts: ("compact,delete", str(90 * DAY_MS)),
        names.review: ("delete", "-1"),
        names.review_snapshot: ("delete", "-1"),
        names.decisions: ("delete", "-1"),
        names.audit: ("delete", "-1"),
        names.dead: ("delete", str(30 * DAY_MS)),
        names.replays: ("delete", str(30 * DAY_MS)),
    }
    for topic, (policy, retention) in expected.items():
        configs = _configs(settings, topic)
        assert (configs["cleanup.policy"], configs["retention.ms"]) == (policy, retention)
        assert configs["max.message.bytes"] == "3000000"
    for topic in (names.dead_actions, names.audit_plans):
        assert _configs(settings, topic)["cleanup.policy"] == "compact"
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        described = admin.describe_topics(list(report.created))
    assert [len(topic["partitions"]) for topic in described] == [3] * len(TopicSettings.model_fields)


def test_making_them_again_changes_nothing(settings: KafkaSettings) -> None:
    first = create_topics(settings, partitions=2, replication_factor=1)
    again = create_topics(settings, partitions=2, replication_factor=1)
    assert again.created == ()
    assert set(again.existing) == set(first.created)
    assert again.differences == ()


def test_an_existing_topic_that_differs_is_reported_and_left_as_it_is(
    settings: KafkaSettings, new_topic: NewTopic
) -> None:
    verdicts = new_topic(partitions=1, configs={"cleanup.policy": "delete,compact", "retention.ms": "60000"})
    topics = settings.topics.model_copy(update={"verdicts": verdicts})

    report = create_topics(settings.model_copy(update={"topics": topics}), partitions=2, replication_factor=1)

    assert set(report.created) == set(topics.names()) - {verdicts}
    assert report.existing == (verdicts,)
    assert {(d.option, d.wanted, d.found) for d in report.differences} == {
        ("partitions", "2", "1"),
        ("retention.ms", str(90 * DAY_MS), "60000"),
        ("max.message.bytes", "3000000", "1048588"),
    }
    assert _configs(settings, verdicts)["retention.ms"] == "60000"


def test_more_replicas_than_brokers_are_refused_with_kafkas_reason(settings: KafkaSettings) -> None:
    with pytest.raises(TopicsError, match=r"(?s)images: .*replication factor") as refused:
        create_topics(settings, partitions=1, replication_factor=3)
    assert settings.topics.dead in str(refused.value)


def test_an_unreachable_broker_is_named_with_what_to_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_connection, "BOOTSTRAP_MS", 500)
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    with pytest.raises(TopicsError, match=rf"{nobody}.*check kafka\.bootstrap_servers"):
        create_topics(KafkaSettings(bootstrap_servers=nobody), partitions=1, replication_factor=1)


@pytest.mark.parametrize("address", ["127.0.0.1:port", "no such host:9092", ""])
def test_an_address_that_is_none_is_reported(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setattr(kafka_connection, "BOOTSTRAP_MS", 500)
    with pytest.raises(TopicsError, match=r"kafka\.bootstrap_servers"):
        create_topics(KafkaSettings(bootstrap_servers=address), partitions=1, replication_factor=1)


def test_three_replicas_ask_for_two_in_sync() -> None:
    of_three = topics_module.topic_configs(KafkaSettings(), replication_factor=3)
    of_one = topics_module.topic_configs(KafkaSettings(), replication_factor=1)
    assert {configs["min.insync.replicas"] for configs in of_three.values()} == {"2"}
    assert {configs["min.insync.replicas"] for configs in of_one.values()} == {"1"}
