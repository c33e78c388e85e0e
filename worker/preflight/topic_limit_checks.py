"""Checks Kafka's limits against the settings: sizes, timeouts, replicas, cleanup policies."""

from collections.abc import Iterator, Mapping
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from worker.intake.retry_topics import MOST_MOVED_BYTES
from worker.outbox import ROOM_FOR_OURS
from worker.preflight.finding import CheckStatus, Finding
from worker.settings import KafkaSettings

_RETENTION = ("retention.ms", "retention.bytes")


def check_limits(admin: Any, settings: KafkaSettings) -> Iterator[Finding]:
    """Compares the configuration of topics and brokers with our settings, as far as we have permission to read it.
    Raises KafkaError.
    """
    topics = settings.topics
    used = [*topics.judged, topics.verdicts, topics.review, topics.dead]
    known = {topic["name"]: topic for topic in admin.describe_topics(used) if not topic["error_code"]}
    configs = _configs(admin, ConfigResourceType.TOPIC, list(known))
    for name, topic in known.items():
        yield from _check_topic(name, configs.get(name, {}), topic, settings)
    yield from _check_timeouts(_broker_configs(admin), settings)


def _check_topic(
    name: str, configs: Mapping[str, str], topic: Mapping[str, Any], settings: KafkaSettings
) -> Iterator[Finding]:
    check = f"Kafka limits of {name}"
    if not configs:
        yield Finding(
            check, CheckStatus.UNKNOWN, "could not be read", "allow DescribeConfigs on the topic to check them"
        )
        return
    problems = [*_topic_problems(name, configs, topic, settings)]
    yield from (Finding(check, status, detail, advice) for status, detail, advice in problems)
    if not problems:
        yield Finding(check, CheckStatus.OK, f"max.message.bytes {configs.get('max.message.bytes', 'not shown')}")


def _topic_problems(
    name: str, configs: Mapping[str, str], topic: Mapping[str, Any], settings: KafkaSettings
) -> Iterator[tuple[CheckStatus, str, str]]:
    topics = settings.topics
    limit = int(configs.get("max.message.bytes", settings.max_message_bytes))
    needed_bytes = min(settings.max_message_bytes, MOST_MOVED_BYTES + ROOM_FOR_OURS)
    if name in topics.deferred and limit < needed_bytes:
        yield (
            CheckStatus.BLOCKED,
            f"max.message.bytes {limit} is less than {needed_bytes}: an event could not be moved to it",
            f"set the topic's max.message.bytes to {settings.max_message_bytes}",
        )
    elif name not in topics.judged and limit < settings.max_message_bytes:
        yield (
            CheckStatus.WRONG,
            f"max.message.bytes {limit} is less than kafka.max_message_bytes {settings.max_message_bytes}: "
            "larger records will be shortened",
            f"set the topic's max.message.bytes to {settings.max_message_bytes}, or lower kafka.max_message_bytes",
        )
    replicas = min((len(part["replica_nodes"]) for part in topic["partitions"]), default=1)
    needed = int(configs.get("min.insync.replicas", 1))
    if name not in topics.incoming and needed > replicas:
        yield (
            CheckStatus.BLOCKED,
            f"min.insync.replicas {needed} is more than its {replicas} replicas, so nothing can be written",
            "add replicas, or lower min.insync.replicas",
        )
    policy = configs.get("cleanup.policy", "delete").split(",")
    if name in topics.judged and "compact" in policy:
        yield (
            CheckStatus.WRONG,
            "cleanup.policy has compact: events may be deleted unjudged when a newer one has the same key",
            "set cleanup.policy to delete",
        )
    if name == topics.review:
        yield from _review_problems(policy, configs)
    if name == topics.dead and "compact" in policy:
        yield (
            CheckStatus.WRONG,
            "cleanup.policy has compact: older dead letters of an event are deleted",
            "set cleanup.policy to delete",
        )


def _review_problems(policy: list[str], configs: Mapping[str, str]) -> Iterator[tuple[CheckStatus, str, str]]:
    limits = [f"{option} {configs[option]}" for option in _RETENTION if configs.get(option, "-1") != "-1"]
    if "delete" not in policy:
        yield (
            CheckStatus.WRONG,
            "cleanup.policy lacks delete: the desk cannot delete records that it needs no more, so the topic grows",
            "set retention.ms=-1, retention.bytes=-1 and cleanup.policy=delete in one command",
        )
    elif limits:
        yield (
            CheckStatus.WRONG,
            f"{' and '.join(limits)}: items vanish, whether or not somebody decided",
            "set retention.ms and retention.bytes to -1: the desk deletes records that it needs no more",
        )


def _check_timeouts(configs: Mapping[str, str], settings: KafkaSettings) -> Iterator[Finding]:
    check = "Kafka timeouts"
    if not configs:
        advice = "allow DescribeConfigs on the cluster to check them"
        yield Finding(check, CheckStatus.UNKNOWN, "could not be read", advice)
        return
    wrong = [*_timeout_problems(configs, settings)]
    yield from (Finding(check, CheckStatus.BLOCKED, detail, advice) for detail, advice in wrong)
    if not wrong:
        yield Finding(check, CheckStatus.OK, "the settings are within the broker's limits")


def _timeout_problems(configs: Mapping[str, str], settings: KafkaSettings) -> Iterator[tuple[str, str]]:
    longest = int(configs.get("transaction.max.timeout.ms", 900_000))
    transaction = settings.transaction_timeout_seconds * 1000
    if settings.delivery == "exactly_once" and transaction > longest:
        yield (
            f"kafka.transaction_timeout_seconds {settings.transaction_timeout_seconds:g} is more than the broker's "
            f"transaction.max.timeout.ms {longest}",
            "lower the setting, or raise the broker's limit",
        )
    session = settings.session_timeout_seconds * 1000
    least, most = (int(configs.get(f"group.{end}.session.timeout.ms", session)) for end in ("min", "max"))
    if not least <= session <= most:
        yield (
            f"kafka.session_timeout_seconds {settings.session_timeout_seconds:g} is outside the broker's "
            f"group.min.session.timeout.ms {least} and group.max.session.timeout.ms {most}",
            "set it to a value between them",
        )


def _broker_configs(admin: Any) -> Mapping[str, str]:
    brokers = admin.describe_cluster()["brokers"]
    if not brokers:
        return {}
    name = str(brokers[0]["broker_id"])
    return _configs(admin, ConfigResourceType.BROKER, [name]).get(name, {})


def _configs(admin: Any, kind: ConfigResourceType, names: list[str]) -> Mapping[str, Mapping[str, str]]:
    """The configuration of each resource that has a value; empty without permission to read it."""
    if not names:
        return {}
    try:
        described = admin.describe_configs([ConfigResource(kind, name) for name in names], config_filter="all")
    except KafkaError:
        return {}
    return {
        name: {option: entry["value"] for option, entry in options.items() if entry["value"] is not None}
        for name, options in described.get(kind.name.lower(), {}).items()
    }
