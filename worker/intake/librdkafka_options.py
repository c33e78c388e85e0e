"""How clients of librdkafka connect to Kafka, and what they ask of it."""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from worker.intake.kafka_connection import RECONNECT_MS
from worker.intake.kafka_logins import ClientCredentials, read_secret
from worker.settings import KafkaSettings, SettingsError

METADATA_MS: Final = 15_000
"""New partitions are found within this time."""
QUEUED_KILOBYTES: Final = 32 * 1024
"""What the consumer fetches ahead, at most."""
MAX_POLL_INTERVAL_MS: Final = 300_000
TOKEN_SECONDS: Final = 60.0
"""After so long librdkafka asks for a token again; `ClientCredentials` keeps one until it nears its end."""

Options = dict[str, Any]


def client_options(settings: KafkaSettings) -> Options:
    """The options that consumers and producers share: addresses and security.

    librdkafka reads certificates and passwords once, when a client is made. Raises SettingsError for a login that it
    does not have, or when a secret's file cannot be read.
    """
    options: Options = {
        "bootstrap.servers": settings.bootstrap_servers,
        "reconnect.backoff.max.ms": RECONNECT_MS,
        "security.protocol": settings.security_protocol.lower(),
        "topic.metadata.refresh.interval.ms": METADATA_MS,
        "allow.auto.create.topics": False,
        "logger": logging.getLogger("librdkafka"),
    }
    for name, option in (
        ("ssl_cafile", "ssl.ca.location"),
        ("ssl_certfile", "ssl.certificate.location"),
        ("ssl_keyfile", "ssl.key.location"),
    ):
        path = getattr(settings, name)
        if path is not None:
            options[option] = str(path)
    if settings.ssl_key_password_file is not None:
        options["ssl.key.password"] = read_secret(settings.ssl_key_password_file)
    elif settings.ssl_key_password is not None:
        options["ssl.key.password"] = settings.ssl_key_password.get_secret_value()
    return options | _login(settings)


def consumer_options(settings: KafkaSettings) -> Options:
    """A member of the group that reads committed records and never moves its offsets by itself."""
    options: Options = {
        **client_options(settings),
        "group.id": settings.group_id,
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",  # GapKeeper says where to go on
        "isolation.level": "read_committed",
        "enable.partition.eof": True,  # tells the position behind transaction markers
        "check.crcs": True,
        "session.timeout.ms": int(settings.session_timeout_seconds * 1000),
        "heartbeat.interval.ms": int(settings.session_timeout_seconds * 1000 / 5),
        "max.poll.interval.ms": max(MAX_POLL_INTERVAL_MS, int(settings.session_timeout_seconds * 1000)),
        "max.partition.fetch.bytes": settings.max_message_bytes,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": QUEUED_KILOBYTES,
    }
    if settings.group_instance_id is not None:
        options["group.instance.id"] = settings.group_instance_id
    return options


def producer_options(settings: KafkaSettings, batch_bytes: int) -> Options:
    """An idempotent producer, with transactions where `delivery` is exactly_once. It takes batches of `batch_bytes`."""
    options: Options = {
        **client_options(settings),
        "acks": "all",
        "enable.idempotence": True,
        "linger.ms": 5,
        "batch.size": batch_bytes,
        "message.max.bytes": settings.max_message_bytes,
        "partitioner": "murmur2_random",  # as Java's and Python's clients choose partitions
        "delivery.report.only.error": True,
    }
    if settings.delivery == "exactly_once":
        options["transactional.id"] = settings.transactional_id
        options["transaction.timeout.ms"] = int(settings.transaction_timeout_seconds * 1000)
    return options


def _login(settings: KafkaSettings) -> Options:
    mechanism = settings.sasl_mechanism
    if not mechanism:
        return {}
    if mechanism in ("AWS_MSK_IAM", "GSSAPI"):
        raise SettingsError(
            f"kafka.client librdkafka has no sasl_mechanism {mechanism}; set kafka.client: kafka-python, which has it"
        )
    options: Options = {"sasl.mechanism": mechanism}
    if settings.sasl_oauth is not None:
        return options | {"oauth_cb": _tokens(ClientCredentials(settings.sasl_oauth))}
    password = settings.sasl_password.get_secret_value() if settings.sasl_password else ""
    if settings.sasl_password_file is not None:
        password = read_secret(settings.sasl_password_file)
    return options | {"sasl.username": settings.sasl_username, "sasl.password": password}


def _tokens(credentials: ClientCredentials) -> Callable[[str], tuple[str, float]]:
    return lambda _config: (credentials.token(), time.time() + TOKEN_SECONDS)
