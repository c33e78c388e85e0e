"""The topics Sluice needs, as they should be, and what a cluster has instead."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import KafkaError, NoError, TopicAlreadyExistsError, for_code

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError
from worker.settings import KafkaSettings

_REQUEST_SECONDS = 30.0


class TopicsError(Exception):
    """The topics could not be made or looked at; the message says where, why and what to do."""


@dataclass(frozen=True, slots=True)
class Difference:
    """An existing topic that is not as `create_topics` would have made it. `found` is None where the cluster does not
    tell, as without the right to describe configurations."""

    topic: str
    option: str
    wanted: str
    found: str | None


@dataclass(frozen=True, slots=True)
class TopicsReport:
    """What `create_topics` made, what was there already, and in what the latter differs."""

    created: tuple[str, ...]
    existing: tuple[str, ...]
    differences: tuple[Difference, ...]


def create_topics(settings: KafkaSettings, *, partitions: int, replication_factor: int) -> TopicsReport:
    """Creates the topics that are missing, and never changes one that exists. May be called again.

    With three replicas or more a record counts as written when two have it. Raises TopicsError.
    """
    wanted = topic_configs(settings, replication_factor=replication_factor)
    options = {
        name: {"num_partitions": partitions, "replication_factor": replication_factor, "configs": configs}
        for name, configs in wanted.items()
    }
    try:
        with admin_client(settings, request_seconds=_REQUEST_SECONDS) as admin:
            response = admin.create_topics(options, raise_errors=False)
            created, existing = _sort_out(response["topics"])
            admin.wait_for_topics(list(created), timeout_ms=_REQUEST_SECONDS * 1000)
            differences = tuple(
                _differences(
                    admin, {name: wanted[name] for name in existing}, partitions=partitions, replicas=replication_factor
                )
            )
    except LogError as error:
        raise TopicsError(str(error)) from error
    except (KafkaError, RuntimeError) as error:
        raise TopicsError(
            f"the topics could not be made at {settings.bootstrap_servers}: {_told(error)}; "
            "nothing is lost by running this again"
        ) from error
    return TopicsReport(created, existing, differences)


def topic_configs(settings: KafkaSettings, *, replication_factor: int) -> dict[str, dict[str, str]]:
    """Kafka's options of each topic, by its name.

    Verdicts are keyed by event: the newest of each stays for 90 days. Review items, decisions and snapshots of the
    desk stay until the desk deletes them (docs/desk.md), every action at the desk stays for good. The newest action
    on each dead letter stays for good: it keeps the letter from being redriven twice. So do all plans of the audit:
    they tell with which probability an image was drawn.
    """
    topics = settings.topics
    wanted = {
        **{name: _kept_for("delete", timedelta(days=7)) for name in topics.incoming},
        topics.verdicts: _kept_for("compact,delete", timedelta(days=90)),
        topics.review: {"cleanup.policy": "delete", "retention.ms": "-1"},
        topics.review_snapshot: {"cleanup.policy": "delete", "retention.ms": "-1"},
        topics.decisions: {"cleanup.policy": "delete", "retention.ms": "-1"},
        topics.audit: {"cleanup.policy": "delete", "retention.ms": "-1"},
        topics.audit_plans: {"cleanup.policy": "compact"},
        topics.dead: _kept_for("delete", timedelta(days=30)),
        topics.dead_actions: {"cleanup.policy": "compact"},
        topics.replays: _kept_for("delete", timedelta(days=30)),
        **{name: _kept_for("delete", timedelta(days=7)) for name in topics.deferred},
    }
    for configs in wanted.values():
        configs["max.message.bytes"] = str(settings.max_message_bytes)
        configs["min.insync.replicas"] = "2" if replication_factor >= 3 else "1"
    return wanted


def _kept_for(policy: str, age: timedelta) -> dict[str, str]:
    return {"cleanup.policy": policy, "retention.ms": str(int(age.total_seconds() * 1000))}


def _sort_out(results: list[dict[str, Any]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names created and those that existed. Raises TopicsError for any other outcome."""
    created, existing, refused = [], [], []
    for result in results:
        outcome = for_code(result["error_code"])
        if outcome is NoError:
            created.append(result["name"])
        elif outcome is TopicAlreadyExistsError:
            existing.append(result["name"])
        else:
            refused.append(f"{result['name']}: {result.get('error_message') or outcome.__name__}")
    if refused:
        made = f" (created: {', '.join(created)})" if created else ""
        raise TopicsError(f"Kafka refused to create {'; '.join(refused)}{made}")
    return tuple(created), tuple(existing)


def _differences(
    admin: KafkaAdminClient, wanted: Mapping[str, Mapping[str, str]], *, partitions: int, replicas: int
) -> Iterator[Difference]:
    if not wanted:
        return
    described = admin.describe_configs(
        [ConfigResource(ConfigResourceType.TOPIC, name) for name in wanted], config_filter="all"
    )
    for topic in admin.describe_topics(list(wanted)):
        name, found = topic["name"], topic["partitions"]
        if len(found) != partitions:
            yield Difference(name, "partitions", str(partitions), str(len(found)))
        has = min((len(partition["replica_nodes"]) for partition in found), default=0)
        if has != replicas:
            yield Difference(name, "replication factor", str(replicas), str(has))
    for name, configs in wanted.items():
        has_configs = described["topic"][name]
        for option, value in configs.items():
            entry = has_configs.get(option)
            is_value = None if entry is None else entry["value"]
            if is_value is None or sorted(is_value.split(",")) != sorted(value.split(",")):
                yield Difference(name, option, value, is_value)


def _told(error: Exception) -> str:
    # kafka-python's own errors say their names
    return str(error) if isinstance(error, KafkaError) else f"{type(error).__name__}: {error}"
