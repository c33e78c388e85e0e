"""One settings tree: a YAML file, overridden by SLUICE_* variables (`SLUICE_KAFKA__BOOTSTRAP_SERVERS`).

No message repeats a value that came from a file or a variable: it may be a secret in the wrong place.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as VariableError

from schemas.base import Digest, Name
from schemas.explain import Problem, problems, suggestion
from worker.yaml_document import YamlDocument, YamlError, read_yaml

PREFIX = "SLUICE_"
DELIMITER = "__"

_S3_OBJECT = r"s3://[a-z0-9][a-z0-9.-]+/[^/\s][^\s]*"
S3Address = Annotated[str, StringConstraints(pattern=f"^{_S3_OBJECT}$", max_length=1200)]
PolicyAddress = S3Address | Path
"""Where a policy lives: `s3://bucket/key`, or a file."""

TopicName = Annotated[str, StringConstraints(min_length=1, max_length=249, pattern=r"^[A-Za-z0-9._-]+$")]


class SettingsError(Exception):
    """The settings cannot be used. Each line names a problem: file and line, or variable, and what is expected."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class TopicSettings(Section):
    """Names of the topics."""

    images: TopicName = "images.in"
    verdicts: TopicName = "images.verdicts"
    review: TopicName = "images.review"
    decisions: TopicName = "images.decisions"
    audit: TopicName = "images.audit"
    dead: TopicName = "images.dead"

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        names = list(self.model_dump().values())
        if len(set(names)) < len(names):
            raise ValueError(f"two topics have one name; {', '.join(TopicSettings.model_fields)} must all differ")
        return self


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

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        sasl = self.security_protocol.startswith("SASL_")
        credentials = {
            "sasl_mechanism": self.sasl_mechanism,
            "sasl_username": self.sasl_username,
            "sasl_password": self.sasl_password,
        }
        absent = [name for name, value in credentials.items() if value is None]
        if sasl and absent:
            raise ValueError(f"security_protocol {self.security_protocol} needs {' and '.join(absent)}")
        if not sasl and len(absent) < len(credentials):
            raise ValueError("sasl_* are set, but security_protocol is neither SASL_PLAINTEXT nor SASL_SSL")
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            raise ValueError("ssl_certfile and ssl_keyfile go together; one of them is absent")
        if self.security_protocol not in ("SSL", "SASL_SSL") and (self.ssl_cafile or self.ssl_certfile):
            raise ValueError("ssl_* are set, but security_protocol is neither SSL nor SASL_SSL")
        return self


class RedisSettings(Section):
    """The cache. Without it everything still works, slower."""

    url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    ttl_seconds: PositiveInt = 30 * 24 * 3600
    timeout_seconds: PositiveFloat = 0.5

    @field_validator("url")
    @classmethod
    def _has_a_known_scheme(cls, url: SecretStr) -> SecretStr:
        if not url.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must begin with redis://, rediss:// or unix://")
        return url


class S3Settings(Section):
    """Where objects are read. Without `endpoint_url`: AWS. Credentials come by boto3's own chain, never from here."""

    endpoint_url: str | None = None
    region: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+/?", url):
            raise ValueError("must be http(s)://host[:port], without credentials or path")
        return url


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


class EngineSettings(Section):
    """What runs the model. `auto` takes the first that starts: an engine of the `repository` that has passed its gate
    and fits this host; torch, compiled in bf16, on the host's GPU; OpenVINO on its processors.

    `repository` is where `sluice build` puts engines: a folder or `s3://bucket/prefix`. Without one `openvino` compiles
    the model's own graph, as `torch` always does. `precision` is what to compute in; absent: with a repository the
    fastest that has passed, else bf16, and for torch without a GPU what the model was measured in.
    """

    backend: Literal["auto", "openvino", "tensorrt", "tensorrt-rtx", "torch"] = "auto"
    precision: Literal["fp32", "fp16", "bf16", "int8"] | None = None
    repository: str | None = None
    threads: PositiveInt | None = None
    """Processors that openvino uses; absent: all that the process may use."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.backend.startswith("tensorrt") and self.repository is None:
            raise ValueError(f"backend {self.backend} needs repository, where sluice build has put engines")
        if self.backend == "torch" and (self.repository or self.threads):
            raise ValueError("backend torch uses neither repository nor threads; remove them")
        if self.backend == "auto" and self.precision is not None:
            raise ValueError("precision goes with a backend that is named, not with auto")
        if self.precision in self._REFUSED.get(self.backend, ()):
            raise ValueError(f"backend {self.backend} does not compute in {self.precision}")
        if self.precision == "int8" and self.repository is None:
            raise ValueError("precision int8 needs repository, where sluice build has put a quantised engine")
        return self

    _REFUSED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "openvino": ("fp16",),
        "tensorrt": ("int8",),
        "tensorrt-rtx": ("int8",),
        "torch": ("fp16", "int8"),
    }


class IntakeSettings(Section):
    """How much work is under way at once, and how patiently faults are met."""

    prepare_threads: PositiveInt = 16
    """Threads that fetch and decode; more than processors, because they mostly wait for others' servers."""
    max_records_in_flight: PositiveInt = 10_000
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    max_records_per_partition: PositiveInt = 5_000
    batch_size: PositiveInt = 16
    batch_wait_seconds: PositiveFloat = 0.02
    batches_in_flight: PositiveInt = 4
    commit_interval_seconds: PositiveFloat = 0.2
    max_attempts: PositiveInt = 6
    retry_base_seconds: PositiveFloat = 0.2
    retry_max_seconds: PositiveFloat = 20.0
    retry_deadline_seconds: PositiveFloat = 120.0
    outage_seconds: PositiveFloat = 600.0
    """An object that its store has not given for so long goes to people, even if the store seems to be down."""
    drain_seconds: PositiveFloat = 20.0
    rebalance_seconds: PositiveFloat = 5.0
    """How long partitions that move to another worker may hold up the group to finish what is under way."""
    commit_patience_seconds: PositiveFloat = 60.0
    stall_seconds: PositiveFloat = 60.0

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.batch_size > self.max_records_in_flight:
            raise ValueError("batch_size is more than max_records_in_flight, so that no batch could ever be full")
        if self.retry_base_seconds > self.retry_max_seconds:
            raise ValueError("retry_base_seconds is more than retry_max_seconds")
        return self


class TelemetrySettings(Section):
    """`metrics_port` serves Prometheus metrics and `/healthz` on `host`; absent: none."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"
    host: str = "127.0.0.1"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] | None = None


class QueueSettings(Section):
    """How a queue is judged: `agree` equal votes of at most `votes` settle an item, and `tie` is what it comes to when
    that many do not agree. `gold_share` of what a reviewer gets are items whose answer is known."""

    agree: PositiveInt = 1
    votes: PositiveInt = 1
    tie: Literal["approve", "reject", "escalate"] = "escalate"
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0

    @model_validator(mode="after")
    def _can_be_settled(self) -> Self:
        if self.agree > self.votes:
            raise ValueError("agree is more than votes, so that no item could ever be settled")
        return self


class WebhookSettings(Section):
    """Where decisions are sent. `secret` signs them. Hosts on private addresses must be listed in `allowed_hosts`."""

    url: str
    secret: Annotated[SecretStr, Field(min_length=16)]
    allowed_hosts: tuple[str, ...] = ()
    timeout_seconds: PositiveFloat = 10.0
    max_attempts: PositiveInt = 8

    @field_validator("url")
    @classmethod
    def _is_an_address_without_credentials(cls, url: str) -> str:
        if not re.fullmatch(r"https?://[^\s@#]+", url):
            raise ValueError("must be an http(s):// address without credentials or fragment")
        return url


class ReviewSettings(Section):
    """The review desk. An item of priority 100 is due `patience_minutes` after it came, one of priority 0 a hundred and
    one times later; a tenant's weight divides that. What is due first comes first, so nothing waits for ever.

    `audit_share` of the images that passed are reviewed in the queue `audit`.

    Items of one tenant and queue whose features have a cosine of at least `duplicate_cosine` are judged together; 1
    leaves only equal files together. Measured with mst-lite 0.4.0 on 891 generated images of AGIQA-3K: at 0.975 9 of
    396,495 pairs of different images count as near (at 0.97: 19, at 0.99: 3); of their copies, as JPEG 85 100 %, as
    WebP 80 92 %, cropped by 2 % 88 % (at 0.99 63 % and 27 %), but of heavily compressed, blurred or shrunk ones 4 to
    9 % and of noisy ones none: those deserve a judgement of their own. Near ones are of images that were blurry before.
    """

    lease_seconds: PositiveFloat = 120.0
    undo_seconds: PositiveFloat = 10.0
    patience_minutes: PositiveFloat = 10.0
    tenant_weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    queues: dict[str, QueueSettings] = Field(default_factory=dict)
    audit_share: Annotated[float, Field(ge=0, le=1)] = 0.01
    duplicate_cosine: Annotated[float, Field(gt=0, le=1)] = 0.975
    keep_closed_days: PositiveInt = 30
    """How long settled items stay in the index; the topics keep them for good."""
    webhook: WebhookSettings | None = None

    def queue(self, name: str) -> QueueSettings:
        """The queue's own settings, or what holds without any."""
        return self.queues.get(name, QueueSettings())


class OidcSettings(Section):
    """A provider of OpenID Connect that signs people in. `roles` maps values of its claim `roles_claim` to the desk's
    roles; who has none of them stays outside."""

    issuer: str
    client_id: str
    client_secret: SecretStr | None = None
    name: Annotated[str, StringConstraints(min_length=1, max_length=64)] = "single sign-on"
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    roles_claim: str = "roles"
    roles: dict[str, Literal["viewer", "reviewer", "lead", "admin"]] = Field(default_factory=dict)

    @field_validator("issuer")
    @classmethod
    def _is_secure(cls, issuer: str) -> str:
        if not re.fullmatch(r"https://[^\s?#]+|http://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?(/[^\s?#]*)?", issuer):
            raise ValueError("must be an https:// address (http:// only on loopback) without query or fragment")
        return issuer


class WebSettings(Section):
    """The desk's page and its HTTP door. Behind a proxy, `public_url` is what people type, and `trusted_proxies` are
    the proxies whose X-Forwarded-For counts. `secret_key` signs image links; replicas must share it; absent: made once
    and kept beside the local users."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8420
    public_url: str | None = None
    trusted_proxies: tuple[str, ...] = ()
    local_users: bool = True
    secret_key: Annotated[SecretStr, Field(min_length=32)] | None = None
    session_hours: PositiveFloat = 12.0
    idle_minutes: PositiveFloat = 60.0
    labels: Annotated[tuple[Name, ...], Field(max_length=9)] = (
        "artefacts",
        "anatomy",
        "blurry",
        "off-prompt",
        "garbled-text",
        "unsafe",
    )
    """Reasons that reviewers can give, by the keys 1 to 9."""
    decode_threads: PositiveInt = 4
    cache_bytes: PositiveInt = 128 * 1024 * 1024
    oidc: OidcSettings | None = None

    @field_validator("public_url")
    @classmethod
    def _is_an_origin(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(r"https?://[^\s/@?#]+", url):
            raise ValueError("must be http(s)://host[:port], without credentials, path or a slash at its end")
        return url


class GatewaySettings(Section):
    """The HTTP door for those who cannot use Kafka. `keys` are the callers: a name, and the SHA-256 of their key
    (`sluice deploy key` makes one); without any, only callers on loopback are answered.

    Limits are a replica's. A caller with more requests under way than its share is told 429, one who finds the replica
    full 503; both answers say when to try again.
    """

    keys: dict[Name, Digest] = Field(default_factory=dict)
    max_requests: PositiveInt = 64
    max_requests_a_caller: PositiveInt = 32
    max_bytes_in_flight: PositiveInt = 256 * 1024 * 1024
    """Of bodies, together. One is at most a third larger than `images.max_bytes`, for base64, and 1 MiB."""
    timeout_seconds: PositiveFloat = 30.0


class Settings(BaseSettings):
    """Everything that can be set. `model` is a name in the model repository or a path to a manifest.

    `policy` is a file or an `s3://bucket/key`; workers notice within seconds when another is there, and the desk saves
    there. `shadow_policies`, by names of the operator's, are asked beside it what they would have done.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
    )

    model: str = "mst-lite"
    policy: PolicyAddress | None = None
    shadow_policies: dict[Name, PolicyAddress] = Field(default_factory=dict)
    kafka: KafkaSettings = KafkaSettings()
    redis: RedisSettings = RedisSettings()
    s3: S3Settings = S3Settings()
    http: HttpSettings = HttpSettings()
    files: FileSettings = FileSettings()
    images: ImageSettings = ImageSettings()
    engine: EngineSettings = EngineSettings()
    intake: IntakeSettings = IntakeSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    review: ReviewSettings = ReviewSettings()
    web: WebSettings = WebSettings()
    gateway: GatewaySettings = GatewaySettings()

    @field_validator("policy", "shadow_policies", mode="before")
    @classmethod
    def _names_an_object(cls, value: object) -> object:
        """A mistyped address would otherwise pass for a file's path."""
        for address in value.values() if isinstance(value, dict) else (value,):
            if isinstance(address, str) and address.startswith("s3:") and not re.fullmatch(_S3_OBJECT, address):
                raise ValueError("an object of S3 is written s3://bucket/key")
        return value

    @model_validator(mode="after")
    def _can_take_an_inflight_record(self) -> Self:
        if self.kafka.max_message_bytes > self.intake.max_bytes_in_flight:
            raise ValueError(
                "kafka.max_message_bytes is more than intake.max_bytes_in_flight: a record could not enter"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed: the process's variables come in by `load_settings`, where a typo is found."""
        return (init_settings,)


def load_settings(path: Path | None, env: Mapping[str, str]) -> Settings:
    """The settings of a file, overridden by the SLUICE_* variables of `env`.

    Relative paths of the file count from its folder, those of variables from the present one. A variable that is set
    to nothing counts as absent. Raises SettingsError.
    """
    variables = {name: value for name, value in env.items() if value and _is_ours(name)}
    _refuse_unknown(variables)
    try:
        document = read_yaml(path) if path is not None else None
        overrides = _Variables(variables)()
    except YamlError as error:
        raise SettingsError(str(error)) from None
    except VariableError as error:
        # Its cause would repeat the value.
        field = re.search(r'field "(\w+)"', str(error))
        name = f"{PREFIX}{field[1].upper()}" if field else f"{PREFIX}*"
        raise SettingsError(f'{name} or below: a value is not JSON; a list is written ["./images"]') from None
    data = _resolved(document.data, path.parent) if document is not None and path is not None else {}
    try:
        return Settings(**_merged(data, overrides))
    except ValidationError as error:
        known = [name.rpartition(".")[2] for name in _names(Settings)]
        lines = [_line(problem, document, variables) for problem in problems(error, known=known, echo=False)]
        raise SettingsError("\n".join(lines)) from None


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """`settings` with `changes` laid over them, section by section, as a settings file writes them.

    Relative paths count from the present folder. Raises SettingsError.
    """
    try:
        return Settings(**_merged(settings.model_dump(), changes))
    except ValidationError as error:
        known = [name.rpartition(".")[2] for name in _names(Settings)]
        raise SettingsError("\n".join(map(str, problems(error, known=known, echo=False)))) from None


class _Variables(EnvSettingsSource):
    """The variables of a mapping rather than of the process."""

    def __init__(self, variables: Mapping[str, str]) -> None:
        self._given = variables
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._given.items()}


_KUBERNETES = re.compile(r"SLUICE_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)")
"""What Kubernetes puts into every pod beside a Service whose name begins with `sluice`."""


def _is_ours(name: str) -> bool:
    # Kubernetes makes one underscore of a hyphen, so a name with two is a setting: SLUICE_WEB__PORT.
    return name.upper().startswith(PREFIX) and (DELIMITER in name or not _KUBERNETES.fullmatch(name))


def _refuse_unknown(variables: Mapping[str, str]) -> None:
    """A mistyped variable would otherwise be passed over in silence."""
    known = [f"{PREFIX}{name.replace('.', DELIMITER)}".upper() for name in _names(Settings)]
    unknown = [name for name in variables if name.upper() not in known]
    if unknown:
        lines = [f"{name}: no such setting{suggestion(name.upper(), known)}" for name in sorted(unknown)]
        raise SettingsError("\n".join(lines))


def _names(model: type[BaseModel]) -> Iterator[str]:
    """Every setting with its path: `kafka`, `kafka.topics`, `kafka.topics.images`."""
    for name, field in model.model_fields.items():
        yield name
        for kind in (field.annotation, *get_args(field.annotation)):  # a section, or one that may be absent
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from (f"{name}.{inner}" for inner in _names(kind))


def _resolved(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The file's data with its relative paths counted from its folder; wrong types are left for validation to name."""

    def resolve(value: object) -> object:
        if not isinstance(value, str) or not value or value.startswith("s3:"):
            return value
        return str((folder / Path(value).expanduser()).resolve())

    resolved = dict(data)
    if "policy" in data:
        resolved["policy"] = resolve(data["policy"])
    if isinstance(shadows := data.get("shadow_policies"), dict):
        resolved["shadow_policies"] = {name: resolve(value) for name, value in shadows.items()}
    model = data.get("model")
    if isinstance(model, str) and ("/" in model or model.endswith(".json")):
        resolved["model"] = resolve(model)
    files, kafka, engine = data.get("files"), data.get("kafka"), data.get("engine")
    if isinstance(engine, dict) and isinstance(place := engine.get("repository"), str) and "://" not in place:
        resolved["engine"] = engine | {"repository": resolve(place)}
    if isinstance(files, dict) and isinstance(files.get("roots"), list):
        resolved["files"] = files | {"roots": [resolve(root) for root in files["roots"]]}
    if isinstance(kafka, dict):
        paths = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
        resolved["kafka"] = {name: resolve(value) if name in paths else value for name, value in kafka.items()}
    return resolved


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over` laid over it, section by section."""
    merged = dict(base)
    for name, value in over.items():
        below = merged.get(name)
        merged[name] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _line(problem: Problem, document: YamlDocument | None, variables: Mapping[str, str]) -> str:
    """A problem with where its value came from: the variable that set it, or the line of the file."""
    keys = [part for part in problem.path if isinstance(part, str)]
    setting = f"{PREFIX}{DELIMITER.join(keys)}".upper()
    by_variable = [name for name in variables if f"{setting}{DELIMITER}".startswith(f"{name.upper()}{DELIMITER}")]
    if by_variable:
        return f"{by_variable[0]}: {problem}"
    return f"{document.at(problem.path)}: {problem}" if document is not None else str(problem)
