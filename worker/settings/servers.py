"""Settings of the servers that the worker uses: Kafka, Redis, S3."""

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
    """Image events."""
    verdicts: TopicName = "images.verdicts"
    """Verdicts, one for each event."""
    review: TopicName = "images.review"
    """Review items."""
    review_snapshot: TopicName = "images.review.snapshot"
    """Snapshots of the review desk's items: a rebuild starts from the newest one."""
    decisions: TopicName = "images.decisions"
    """Reviewers' decisions."""
    audit: TopicName = "images.audit"
    """Audit entries."""
    audit_plans: TopicName = "images.audit.plans"
    """The probabilities with which passed images are drawn for the audit."""
    dead: TopicName = "images.dead"
    """Dead letters: events that could not be judged."""
    dead_actions: TopicName = "images.dead.actions"
    """What was done with dead letters (redriven, dropped)."""
    replays: TopicName = "images.replays"
    """Verdicts of `sluice replay`."""
    retry_1: TopicName = "images.retry.1"
    """Events that wait for another attempt. `intake.retry_delays_seconds` sets the delay of each retry topic."""
    retry_2: TopicName = "images.retry.2"
    """The second retry topic."""
    retry_3: TopicName = "images.retry.3"
    """The third retry topic."""
    surplus: TopicName = "images.surplus"
    """Events of tenants that sent more than their share. Workers read them when they have capacity to spare."""
    surplus_long: TopicName = "images.surplus.long"
    """Surplus events that are more than five minutes behind other events of their tenant."""
    priority: TopicName | None = None
    """A second topic of image events, read before `images`. Default: none."""

    @property
    def retry(self) -> tuple[str, ...]:
        """The retry topics, in the order in which an event passes through them."""
        return self.retry_1, self.retry_2, self.retry_3

    @property
    def deferred(self) -> tuple[str, ...]:
        """The retry and surplus topics: Sluice moves events there to judge them later."""
        return *self.retry, *self.surplus_topics

    @property
    def surplus_topics(self) -> tuple[str, ...]:
        """Topics for events of tenants over their share; they also hold packs (worker.intake.packs)."""
        return self.surplus, self.surplus_long

    @property
    def incoming(self) -> tuple[str, ...]:
        """Topics that others write events to."""
        return (self.images,) if self.priority is None else (self.images, self.priority)

    @property
    def judged(self) -> tuple[str, ...]:
        """The topics that a worker reads. Every event in them gets a verdict."""
        return *self.incoming, *self.deferred

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        names = self.names()
        if len(set(names)) < len(names):
            raise ValueError(f"two topics have the same name; {', '.join(TopicSettings.model_fields)} must all differ")
        return self

    def names(self) -> list[str]:
        """All topics that are set."""
        return [name for name in self.model_dump().values() if name is not None]


class KafkaOAuthSettings(Section):
    """OAUTHBEARER: get tokens for Kafka from an OpenID Connect provider, with client credentials."""

    token_url: str
    """The provider's token endpoint."""
    client_id: str
    """The OAuth client id."""
    client_secret: SecretStr | None = None
    """The client secret. Set this or `client_secret_file`."""
    client_secret_file: Path | None = None
    """A file with the client secret. It is read again at each login."""
    scope: str | None = None
    """The scope to ask for. Default: none."""
    ca_file: Path | None = None
    """CA certificates (PEM) that sign the provider's certificate. Default: the system's."""

    @model_validator(mode="after")
    def _has_one_secret(self) -> Self:
        if not re.fullmatch(r"https?://[^\s@]+", self.token_url):
            raise ValueError("token_url must be https://…, without credentials")
        if (self.client_secret is None) == (self.client_secret_file is None):
            raise ValueError("set either client_secret or client_secret_file")
        return self


class SchemaRegistrySettings(Section):
    """The schema registry that holds the schemas of framed records (Confluent's wire format). JSON records need no
    registry."""

    url: str
    """`http(s)://host[:port][/path]`, without credentials."""
    username: str | None = None
    """User for basic authentication. Default: no authentication."""
    password: SecretStr | None = None
    """Password for basic authentication."""
    password_file: Path | None = None
    """A file with the password, instead of `password`. It is read again at each request."""
    ca_file: Path | None = None
    """CA certificates (PEM) that sign the registry's certificate. Default: the system's."""
    unknown_schema_seconds: PositiveFloat = 30.0
    """How long a record waits for a schema that the registry does not know. After that it becomes a dead letter. While
    the registry does not answer, records wait without a limit."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not re.fullmatch(r"https?://[^\s@?#]+", self.url):
            raise ValueError("url must be http(s)://host[:port][/path], without credentials")
        if self.password is not None and self.password_file is not None:
            raise ValueError("password and password_file are both set; remove one")
        has_password = self.password is not None or self.password_file is not None
        if (self.username is None) == has_password:
            raise ValueError("username and password (or password_file) must be set together; one of them is missing")
        return self


class KafkaSettings(Section):
    """The Kafka cluster and how to use it.

    Set `group_instance_id` (static membership) for a worker that keeps its name over restarts, such as a pod whose
    container restarts. After a crash it gets its partitions back at once and ends the transaction that the crash left
    open. Without it, the partitions wait until `session_timeout_seconds` and `transaction_timeout_seconds` have passed.
    The name must be unique in the group.
    """

    client: Literal["kafka-python", "librdkafka"] = "kafka-python"
    """The Kafka client library. librdkafka is faster and needs `pip install 'sluice[librdkafka]'`."""
    bootstrap_servers: str = "127.0.0.1:9092"
    """Brokers to connect to first: `host:port`, separated by commas."""
    group_id: str = "sluice"
    """The consumer group of the workers."""
    topics: TopicSettings = TopicSettings()
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    """`exactly_once` commits outputs and offsets in one transaction. `at_least_once` is for brokers without
    transactions."""
    group_instance_id: InstanceName | None = None
    """The worker's name in the group, for static membership. Default: dynamic membership."""
    transactional_id: str | None = None
    """The producer's transactional id. Default: made from `group_id` and `group_instance_id`; without
    `group_instance_id`, a new one at each start."""
    transaction_timeout_seconds: PositiveFloat = 15.0
    """The broker aborts a transaction that stays open for longer."""
    session_timeout_seconds: PositiveFloat = 10.0
    """The broker removes a worker from the group when it has sent no heartbeat for this long."""
    max_message_bytes: PositiveInt = 8 * 1024 * 1024
    """Maximum size of a record that Sluice writes."""
    lost_records: Literal["stop", "continue"] = "stop"
    """What to do when Kafka deleted records before they were judged. `stop`: stop their partition until `sluice topics
    accept-loss` accepts the loss. `continue`: count the lost records and continue."""
    schema_registry: SchemaRegistrySettings | None = None
    """Needed for events in Avro (docs/events.md). Events in JSON are read with and without a frame."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """TLS and authentication of the connection."""
    sasl_mechanism: SaslMechanism | None = None
    """AWS_MSK_IAM uses the credentials that botocore finds. GSSAPI uses the process's Kerberos ticket and needs the
    package gssapi. OAUTHBEARER uses `sasl_oauth`. The others need a user and a password."""
    sasl_username: str | None = None
    """User for PLAIN and SCRAM."""
    sasl_password: SecretStr | None = None
    """Password for PLAIN and SCRAM."""
    sasl_password_file: Path | None = None
    """A file with the password. It is read again at each login, so a rotated password needs no restart."""
    sasl_oauth: KafkaOAuthSettings | None = None
    """Needed for OAUTHBEARER."""
    sasl_kerberos_service_name: str = "kafka"
    """The brokers' Kerberos service name, for GSSAPI."""
    ssl_cafile: Path | None = None
    """CA certificates (PEM) that sign the brokers' certificates. Default: the system's."""
    ssl_certfile: Path | None = None
    """The client certificate (PEM)."""
    ssl_keyfile: Path | None = None
    """The client certificate's key (PEM)."""
    ssl_key_password: SecretStr | None = None
    """The key's password."""
    ssl_key_password_file: Path | None = None
    """A file with the key's password."""

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
            raise ValueError("ssl_certfile and ssl_keyfile must be set together; one of them is missing")
        if self.security_protocol not in ("SSL", "SASL_SSL") and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError("ssl_* are set, but security_protocol is neither SSL nor SASL_SSL")
        return self


class RedisSettings(Section):
    """The score cache and the desk's index. Without Redis, workers score every image again."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """`redis://USER:PASSWORD@HOST:PORT/DB`; `rediss://…` for TLS. With `sentinels` or `cluster` the host is ignored."""
    password_file: Path | None = None
    """A file with the password, instead of the one in `url`. It is read again at each connection."""
    sentinels: Annotated[tuple[HostPort, ...], Field(max_length=32)] = ()
    """Addresses (`host:port`) of Redis Sentinels, which know the primary. Needs `sentinel_primary`."""
    sentinel_primary: str | None = None
    """The primary's name in the Sentinels."""
    cluster: Annotated[tuple[HostPort, ...], Field(max_length=32)] = ()
    """Addresses (`host:port`) of some nodes of a Redis Cluster; the other nodes are discovered. For workers and the
    gateway. The review desk needs one server or Sentinels."""
    ssl_cafile: Path | None = None
    """CA certificates (PEM) that sign the server's certificate. Default: the system's."""
    ssl_certfile: Path | None = None
    """The client certificate (PEM)."""
    ssl_keyfile: Path | None = None
    """The client certificate's key (PEM)."""
    ttl_seconds: PositiveInt = 30 * 24 * 3600
    """How long a cached score is kept."""
    timeout_seconds: PositiveFloat = 0.5
    """Timeout of a Redis command. After it, a lookup counts as a cache miss."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        tls = self.url.get_secret_value().startswith("rediss://")
        if not tls and (self.ssl_cafile or self.ssl_certfile or self.ssl_keyfile):
            raise ValueError("ssl_* are set, but url does not begin with rediss://")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile must be set together; one of them is missing")
        if bool(self.sentinels) != (self.sentinel_primary is not None):
            raise ValueError("sentinels and sentinel_primary must be set together; one of them is missing")
        if self.password_file is not None and urlsplit(self.url.get_secret_value()).password:
            raise ValueError("url has a password, and password_file is set; remove one")
        if self.sentinels and self.cluster:
            raise ValueError("sentinels and cluster are both set; remove one")
        if (self.sentinels or self.cluster) and self.url.get_secret_value().startswith("unix://"):
            raise ValueError(f"{'sentinels are' if self.sentinels else 'cluster is'} set, but url is a unix:// socket")
        if self.cluster and urlsplit(self.url.get_secret_value()).path not in ("", "/", "/0"):
            raise ValueError("a Redis Cluster has only database 0; remove the database from url")
        return self

    @field_validator("url")
    @classmethod
    def _has_a_known_scheme(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url


class S3Settings(Section):
    """The object store of images, policies and models. Credentials are found by boto3 and are never set here."""

    endpoint_url: str | None = None
    """`http(s)://host[:port]` of an S3-compatible store. Default: AWS."""
    profile: str | None = None
    """A profile of the AWS configuration files, for example for single sign-on. Default: AWS_PROFILE, then the rest of
    boto3's credential chain."""
    ca_file: Path | None = None
    """CA certificates (PEM) that sign the store's certificate. Default: the system's."""
    region: str | None = None
    """The store's region. Default: boto3's."""
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    """`path` puts the bucket into the path, `virtual` into the host name."""

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+/?", url):
            raise ValueError("must be http(s)://host[:port], without credentials or path")
        return url
