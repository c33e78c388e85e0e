"""Checks Kafka: topics, permissions, the consumer group and the transactional id."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kafka.errors import KafkaError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError, for_code

from worker.intake.kafka_probe import admin_client, may_use_group, may_use_transactional_id
from worker.intake.log import LogError, LogRefused
from worker.intake.lost_records import lost_ranges
from worker.preflight.finding import CheckStatus, Finding
from worker.preflight.topic_limit_checks import check_limits
from worker.settings import KafkaSettings, TopicSettings

_TRANSACTIONS_SINCE: Final = (2, 5)
"""The first version that fences a consumer that was replaced (KIP-447)."""


def check_kafka(settings: KafkaSettings, *, desk: bool = False) -> Iterator[Finding]:
    """Runs all checks of Kafka; with `desk`, also those of the review desk. Never raises."""
    try:
        with admin_client(settings) as admin:
            yield Finding("Kafka", CheckStatus.OK, f"connected to {settings.bootstrap_servers}")
            yield from check_permissions(admin, settings, desk=desk)
            yield from check_limits(admin, settings)
            yield from _check_lost(admin, settings)
    except LogError as error:
        yield Finding("Kafka", CheckStatus.BLOCKED, str(error), lasting=isinstance(error, LogRefused))
    except (KafkaError, OSError) as error:
        yield Finding("Kafka", CheckStatus.BLOCKED, f"the broker did not answer a request: {error}", lasting=False)


def check_permissions(admin: Any, settings: KafkaSettings, *, desk: bool = False) -> Iterator[Finding]:
    """Checks that the topics exist, and that the worker may use them, the group and the transactional id. Raises
    KafkaError if the broker does not answer.
    """
    needs = needed_operations(settings.topics, desk=desk)
    for topic in admin.describe_topics(list(needs)):
        yield _check_topic(topic, needs[topic["name"]], settings)
    yield _check_group(admin, settings)
    if settings.delivery == "exactly_once":
        yield _check_transactions(admin, settings)


def _check_lost(admin: Any, settings: KafkaSettings) -> Iterator[Finding]:
    """Checks whether Kafka deleted records that the group had not judged."""
    check = "Kafka offsets"
    try:
        lost = lost_ranges(admin, settings)
    except KafkaError as error:
        yield Finding(check, CheckStatus.UNKNOWN, f"could not be read ({type(error).__name__})")
        return
    for each in lost:
        advice = "run `sluice topics accept-loss` to let workers continue without them"
        yield Finding(check, CheckStatus.WRONG, str(each), advice)
    if not lost:
        yield Finding(check, CheckStatus.OK, "no unjudged record has been deleted")


def needed_operations(topics: TopicSettings, *, desk: bool) -> Mapping[str, frozenset[str]]:
    """The operations (Kafka ACL names) that are needed on each topic."""
    needs = {
        **dict.fromkeys(topics.incoming, frozenset({"READ"})),
        topics.verdicts: frozenset({"WRITE"}),
        topics.review: frozenset({"WRITE"}),
        topics.dead: frozenset({"WRITE"}),
        **dict.fromkeys(topics.deferred, frozenset({"READ", "WRITE"})),
    }
    if not desk:
        return needs
    return needs | {
        topics.verdicts: frozenset({"READ", "WRITE"}),
        topics.review: frozenset({"READ", "WRITE", "DELETE"}),
        topics.review_snapshot: frozenset({"READ", "WRITE", "DELETE"}),
        topics.images: frozenset({"READ", "WRITE"}),  # `sluice dead redrive` writes events
        topics.dead: frozenset({"READ", "WRITE"}),
        topics.dead_actions: frozenset({"READ", "WRITE"}),
        topics.decisions: frozenset({"READ", "WRITE", "DELETE"}),
        topics.audit: frozenset({"READ", "WRITE"}),
        topics.audit_plans: frozenset({"READ", "WRITE"}),
    }


def _check_topic(topic: Mapping[str, Any], needed: frozenset[str], settings: KafkaSettings) -> Finding:
    name = topic["name"]
    words = " and ".join(operation.lower() for operation in sorted(needed))
    check = f"Kafka topic {name}"
    error = for_code(topic["error_code"])
    if error is UnknownTopicOrPartitionError:
        return Finding(
            check,
            CheckStatus.BLOCKED,
            "does not exist",
            "create it with `sluice topics create`, or correct kafka.topics",
            lasting=False,  # it may be created at this moment
        )
    if error is TopicAuthorizationFailedError:
        detail = f"no permission to {words} (Kafka does not say whether it exists)"
        return Finding(check, CheckStatus.BLOCKED, detail, _grant(settings, "topic", name, needed))
    allowed = topic.get("authorized_operations")
    missing = needed - set(allowed) if allowed is not None else frozenset()
    if missing:
        detail = f"no permission to {' and '.join(operation.lower() for operation in sorted(missing))}"
        # The desk works without deleting what it needs no more, but its topics grow.
        status = CheckStatus.WRONG if missing == {"DELETE"} else CheckStatus.BLOCKED
        return Finding(check, status, detail, _grant(settings, "topic", name, missing))
    leaderless = [part["partition_index"] for part in topic["partitions"] if part["leader_id"] < 0]
    if leaderless:
        numbers = ", ".join(map(str, sorted(leaderless)))
        return Finding(
            check, CheckStatus.WRONG, f"no leader for partition {numbers}", "start its brokers", lasting=False
        )
    return Finding(check, CheckStatus.OK, f"may {words}; partitions: {len(topic['partitions'])}")


def _check_group(admin: Any, settings: KafkaSettings) -> Finding:
    check = f"Kafka group {settings.group_id}"
    if may_use_group(admin, settings.group_id):
        return Finding(check, CheckStatus.OK, "may read as a member")
    advice = _grant(settings, "group", settings.group_id, {"READ"})
    return Finding(
        check, CheckStatus.BLOCKED, ("no permission to read as a member of the group (kafka.group_id)"), advice
    )


def _check_transactions(admin: Any, settings: KafkaSettings) -> Finding:
    if admin.broker_version() < _TRANSACTIONS_SINCE:
        return Finding(
            "Kafka transactions",
            CheckStatus.BLOCKED,
            "the broker is older than Kafka 2.5 and cannot fence a worker that was replaced",
            "set kafka.delivery to at_least_once",
        )
    # Without a transactional id of its own, a worker uses the group id with a random suffix.
    fixed = settings.transactional_id or (
        f"{settings.group_id}-{settings.group_instance_id}" if settings.group_instance_id else None
    )
    name = fixed or f"{settings.group_id}-permission-check"
    shown = fixed or f"{settings.group_id}-*"
    check = f"Kafka transactional id {shown}"
    if may_use_transactional_id(admin, name, settings.group_id):
        return Finding(check, CheckStatus.OK, "may write in transactions")
    advice = _grant(
        settings,
        "transactional-id",
        fixed or f"{settings.group_id}-",
        {"WRITE"},
        prefixed=fixed is None,
    )
    return Finding(check, CheckStatus.BLOCKED, "no permission to write in transactions", advice)


def _grant(
    settings: KafkaSettings, kind: str, name: str, operations: frozenset[str] | set[str], *, prefixed: bool = False
) -> str:
    """The command with which a Kafka administrator grants the permission."""
    user = settings.sasl_username or "NAME"
    asked = " ".join(f"--operation {operation.title()}" for operation in sorted(operations))
    pattern = " --resource-pattern-type prefixed" if prefixed else ""
    return f"kafka-acls.sh --add --allow-principal User:{user} {asked} --{kind} {name}{pattern}"
