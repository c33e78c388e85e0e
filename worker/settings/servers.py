"""The servers beside the worker: Kafka, Redis, S3."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, StringConstraints, field_validator, model_validator

from worker.settings.section import Section

SaslMechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM", "GSSAPI"]
_PASSWORD: Final = ("sasl_username", "sasl_password")
_LOGIN_NEEDS: Final[Mapping[str, tuple[str, ...]]] = {
    "PLAIN": _PASSWORD,
    "SCRAM-SHA-256": _PASSWORD,
    "SCRAM-SHA-512": _PASSWORD,
    "OAUTHBEARER": ("sasl_oauth",),
}

HostPort = Annotated[str, StringConstraints(pattern=r"^[^\s/@]+:[0-9]{1,5}$", max_length=300)]
TopicName = Annotated[str, StringConstraints(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]
InstanceName = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")
]


class TopicSettings(Section):
    """Names of the topics."""

    images: TopicName = "images.in"
    verdicts: TopicName = "images.verdicts"
    review: TopicName = "images.review"
    decisions: TopicName = "images.decisions"
    audit: TopicName = "images.audit"
    dead: TopicName = "images.dead"
    dead_actions: TopicName = "images.dead.actions"
    replays: TopicName = "images.replays"
    retry_1: TopicName = "images.retry.1"
    """Events that wait for another attempt: `intake.retry_delays_seconds` says how long in each of the three."""
    retry_2: TopicName = "images.retry.2"
    retry_3: TopicName = "images.retry.3"
    surplus: TopicName = "images.surplus"
    """Events of tenants that sent more than their share; workers read them as they have room."""
    surplus_long: TopicName = "images.surplus.long"
    """Those that are more than five minutes behind others of their tenant."""
    priority: TopicName | None = None
    """Events here go before those of `images`."""

    @property
    def retry(self) -> tuple[str, ...]:
        """The retry topics, in the order in which an event passes through them."""
        return self.retry_1, self.retry_2, self.retry_3

    @property
    def deferred(self) -> tuple[str, ...]:
        """Topics that only Sluice writes: events that it moved out of the way, to be judged later."""
        return *self.retry, self.surplus, self.surplus_long

    @property
    def incoming(self) -> tuple[str, ...]:
        """Topics that others write events to."""
        return (self.images,) if self.priority is None else (self.images, self.priority)

    @property
    def judged(self) -> tuple[str, ...]:
        """What a worker reads: every event in them gets a verdict."""
        return *self.incoming, *self.deferred

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        names = self.names()
        if len(set(names)) < len(names):
            raise ValueError(f"two topics have one name; {', '.join(TopicSettings.model_fields)} must all differ")
        return self

    def names(self) -> list[str]:
        """All topics that are set."""
        return [name for name in self.model_dump().values() if name is not None]


class KafkaOAuthSettings(Section):
    """Where tokens for Kafka come from: an OpenID Connect provider, by client credentials (OAUTHBEARER)."""

    token_url: str
    client_id: str
    client_secret: SecretStr | None = None
    client_secret_file: Path | None = None
    scope: str | None = None
    ca_file: Path | None = None

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if not re.fullmatch(r"https?://[^\s@]+", self.token_url):
            raise ValueError("token_url must be https://…, without credentials")
        if (self.client_secret is None) == (self.client_secret_file is None):
            raise ValueError("needs client_secret or client_secret_file, one of them")
        return self


class SchemaRegistrySettings(Section):
    """Where the schemas are of values that a serializer has framed (Confluent's wire format). JSON is read without."""

    url: str
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    """In place of `password`; read again at each question."""
    ca_file: Path | None = None
    unknown_schema_seconds: PositiveFloat = 30.0
    """How long records wait for a schema that the registry does not know; then they become dead letters. While the
    registry does not answer, they wait for as long as that lasts."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not re.fullmatch(r"https?://[^\s@?#]+", self.url):
            raise ValueError("url must be http(s)://host[:port][/path], without credentials")
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both set; remove one")
        has_password = self.password is not None or self.password_file is not None
        if (self.username is None) == has_password:
            raise ValueError("username and password (or password_file) go together; one of them is absent")
        return self


class KafkaSettings(Section):
    """The broker and how to talk to it. `delivery: at_least_once` is for brokers without transactions.

    A worker that keeps its name over restarts, as a pod does when its container is restarted, sets it as
    `group_instance_id` (Kafka's static membership): after a crash it takes back its partitions at once, and ends the
    transaction that the crash left open. Without a name, its partitions stand still until `session_timeout_seconds` and
    `transaction_timeout_seconds` have passed. No two workers of a group may have the same name.
    """

    client: Literal["kafka-python", "librdkafka"] = "kafka-python"
    """The library that reads and writes Kafka. librdkafka is faster, and needs `pip install 'sluice[librdkafka]'`."""
    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: str = "sluice"
    topics: TopicSettings = TopicSettings()
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    group_instance_id: InstanceName | None = None
    transactional_id: str | None = None
    """Absent: made from `group_id` and `group_instance_id`; without the latter, a new one at each start."""
    transaction_timeout_seconds: PositiveFloat = 15.0
    session_timeout_seconds: PositiveFloat = 10.0
    max_message_bytes: PositiveInt = 8 * 1024 * 1024
    lost_records: Literal["stop", "continue"] = "stop"
    """What to do when records left the log before they were judged: stop their partition until somebody accepts the
    loss (`sluice topics accept-loss`), or count it and go on."""
    schema_registry: SchemaRegistrySettings | None = None
    """For events in Avro (docs/events.md). Events in JSON are read with and without a frame."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: SaslMechanism | None = None
    """AWS_MSK_IAM takes credentials by botocore's own chain, GSSAPI the ticket of the process (it needs the package
    gssapi), OAUTHBEARER tokens as `sasl_oauth` says; the others need a user and a password."""
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    sasl_password_file: Path | None = None
    """Read again at each login, so that a rotated password needs no restart."""
    sasl_oauth: KafkaOAuthSettings | None = None
    sasl_kerberos_service_name: str = "kafka"
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ssl_key_password: SecretStr | None = None
    ssl_key_password_file: Path | None = None

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        sasl = self.security_protocol.startswith("SASL_")
        has_password = self.sasl_password is not None or self.sasl_password_file is not None
        credentials = {
            "sasl_mechanism": self.sasl_mechanism is not None,
            "sasl_username": self.sasl_username is not None,
            "sasl_password": has_password,
            "sasl_oauth": self.sasl_oauth is not None,
        }
        needed = {"sasl_mechanism", *_LOGIN_NEEDS.get(self.sasl_mechanism or "PLAIN", ())}
        absent = [name for name, given in credentials.items() if name in needed and not given]
        surplus = [name for name, given in credentials.items() if name not in needed and given]
        if sasl and absent:
            raise ValueError(f"security_protocol {self.security_protocol} needs {' and '.join(absent)}")
        if sasl and surplus:
            raise ValueError(f"sasl_mechanism {self.sasl_mechanism} takes no {' and no '.join(surplus)}")
        if not sasl and any(credentials.values()):
            raise ValueError("sasl_* are set, but security_protocol is neither SASL_PLAINTEXT nor SASL_SSL")
        if self.sasl_password is not None and self.sasl_password_file is not None:
            raise ValueError("sasl_password and sasl_password_file are both set; remove one")
        if self.sasl_mechanism == "AWS_MSK_IAM" and self.security_protocol != "SASL_SSL":
            raise ValueError("sasl_mechanism AWS_MSK_IAM needs security_protocol SASL_SSL")
        if self.ssl_keyfile is None and (self.ssl_key_password or self.ssl_key_password_file):
            raise ValueError("ssl_key_password is set, but no ssl_keyfile")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together; one of them is absent")
        if self.security_protocol not in ("SSL", "SASL_SSL") and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError("ssl_* are set, but security_protocol is neither SSL nor SASL_SSL")
        return self


class RedisSettings(Section):
    """The cache. Without it everything still works, slower."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://USER:PASSWORD@HOST:PORT/DB`, `rediss://…` for TLS. With `sentinels` or `cluster` the host is unused."""
    password_file: Path | None = None
    """In place of the password in `url`; read again at each connection."""
    sentinels: Annotated[tuple[HostPort, ...], Field(max_length=32)] = ()
    """Addresses of Redis Sentinels, which say where the primary is; `sentinel_primary` is its name there."""
    sentinel_primary: str | None = None
    cluster: Annotated[tuple[HostPort, ...], Field(max_length=32)] = ()
    """Addresses of some nodes of a Redis Cluster, which name the others. For workers and the gateway; the review desk
    needs one server or sentinels."""
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None
    ttl_seconds: PositiveInt = 30 * 24 * 3600
    timeout_seconds: PositiveFloat = 0.5

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        tls = self.url.get_secret_value().startswith("rediss://")
        if not tls and (self.ssl_cafile or self.ssl_certfile or self.ssl_keyfile):
            raise ValueError("ssl_* are set, but url is no rediss://")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together; one of them is absent")
        if bool(self.sentinels) != (self.sentinel_primary is not None):
            raise ValueError("sentinels and sentinel_primary go together; one of them is absent")
        if self.password_file is not None and urlsplit(self.url.get_secret_value()).password:
            raise ValueError("url has a password, and password_file is set; remove one")
        if self.sentinels and self.cluster:
            raise ValueError("sentinels and cluster are both set; remove one")
        if (self.sentinels or self.cluster) and self.url.get_secret_value().startswith("unix://"):
            raise ValueError(f"{'sentinels are' if self.sentinels else 'cluster is'} set, but url is a unix:// socket")
        if self.cluster and urlsplit(self.url.get_secret_value()).path not in ("", "/", "/0"):
            raise ValueError("a Redis Cluster has no databases but 0; remove the one in url")
        return self

    @field_validator("url")
    @classmethod
    def _has_a_known_scheme(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url


class S3Settings(Section):
    """Where objects are read. Without `endpoint_url`: AWS. Credentials come by boto3's own chain, never from here."""

    endpoint_url: str | None = None
    profile: str | None = None
    """A profile of AWS's own files, as for single sign-on; absent: AWS_PROFILE, and the rest of boto3's chain."""
    ca_file: Path | None = None
    """Authorities that sign the store's certificate, where that is none that the system knows."""
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+/?", url):
            raise ValueError("must be http(s)://host[:port], without credentials or path")
        return url
