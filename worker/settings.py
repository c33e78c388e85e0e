"""One settings tree: a YAML file, overridden by SLUICE_* variables (`SLUICE_KAFKA__BOOTSTRAP_SERVERS`)."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, SecretStr, StringConstraints
from pydantic_settings import BaseSettings, SettingsConfigDict

TopicName = Annotated[str, StringConstraints(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TopicSettings(Section):
    """Names of the topics."""

    images: TopicName = "images.in"
    verdicts: TopicName = "images.verdicts"
    review: TopicName = "images.review"
    dead: TopicName = "images.dead"


class KafkaSettings(Section):
    """The broker and how to talk to it. `delivery: at_least_once` is for brokers without transactions.

    A worker with a stable `transactional_id` (a StatefulSet's pod name) takes over at once what a crash left open;
    without one, the broker ends it after `transaction_timeout_seconds`.
    """

    bootstrap_servers: str = "127.0.0.1:9092"
    group_id: str = "sluice"
    topics: TopicSettings = TopicSettings()
    delivery: Literal["exactly_once", "at_least_once"] = "exactly_once"
    transactional_id: str | None = None
    transaction_timeout_seconds: PositiveFloat = 15.0
    session_timeout_seconds: PositiveFloat = 10.0
    max_message_bytes: PositiveInt = 8 * 1024 * 1024
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_cafile: Path | None = None
    ssl_certfile: Path | None = None
    ssl_keyfile: Path | None = None


class RedisSettings(Section):
    """The cache. Without it everything still works, slower."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    ttl_seconds: PositiveInt = 30 * 24 * 3600
    timeout_seconds: PositiveFloat = 0.5


class S3Settings(Section):
    """Where objects are read. Without `endpoint_url`: AWS. Credentials come by boto3's own chain, never from here."""

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"


class HttpSettings(Section):
    """What may be fetched over HTTP: the hosts listed (`cdn.example.com`, `*.example.com`); with none listed, any
    public address. Private, loopback, link-local and metadata addresses are refused unless their host is listed."""

    allowed_hosts: tuple[str, ...] = ()
    max_redirects: Annotated[int, Field(ge=0, le=20)] = 3


class FileSettings(Section):
    """Folders below which files may be read, and nothing else; relative ones count from the settings file."""

    roots: tuple[Path, ...] = ()


class ImageSettings(Section):
    """Limits for every image, wherever it comes from."""

    max_bytes: PositiveInt = 32 * 1024 * 1024
    max_pixels: PositiveInt = 64_000_000
    fetch_timeout_seconds: PositiveFloat = 10.0


class IntakeSettings(Section):
    """How much work is under way at once, and how patiently faults are met."""

    prepare_threads: PositiveInt | None = None
    """Threads that fetch and decode; absent: twice the processors."""
    max_records_in_flight: PositiveInt = 2000
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    max_records_per_partition: PositiveInt = 1000
    batch_size: PositiveInt = 16
    batch_wait_seconds: PositiveFloat = 0.02
    batches_in_flight: PositiveInt = 4
    commit_interval_seconds: PositiveFloat = 0.2
    max_attempts: PositiveInt = 6
    retry_base_seconds: PositiveFloat = 0.2
    retry_max_seconds: PositiveFloat = 20.0
    retry_deadline_seconds: PositiveFloat = 120.0
    drain_seconds: PositiveFloat = 20.0
    stall_seconds: PositiveFloat = 60.0


class TelemetrySettings(Section):
    """`metrics_port` serves Prometheus metrics and `/healthz` on `host`; absent: none."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None


class Settings(BaseSettings):
    """Everything that can be set. `model` is a name in the model repository or a path to a manifest."""

    model_config = SettingsConfigDict(
        env_prefix="SLUICE_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
    )

    model: str = "mst-lite"
    policy: Path | None = None
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    s3: S3Settings = S3Settings()
    http: HttpSettings = HttpSettings()
    files: FileSettings = FileSettings()
    images: ImageSettings = ImageSettings()
    intake: IntakeSettings = IntakeSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
