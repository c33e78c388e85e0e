"""Schemas of a schema registry, fetched on a thread of its own and kept."""

import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal

import httpx
import structlog

from worker.intake.avro_values import AvroReader, UnusableSchema, avro_reader
from worker.intake.kafka_logins import read_secret
from worker.settings import KafkaSettings, SchemaRegistrySettings, SettingsError

log = structlog.get_logger(__name__)

MAX_SCHEMAS: Final = 1000
MAX_SCHEMA_BYTES: Final = 1024 * 1024
TIMEOUT_SECONDS: Final = 5.0
RETRY_SECONDS: Final = 2.0
"""Between two questions for a schema that was not given."""
REMIND_SECONDS: Final = 60.0

SchemaKind = Literal["AVRO", "JSON"]


@dataclass(frozen=True, slots=True)
class Schema:
    """How to read values of one schema. `problem`: why none can be read."""

    kind: SchemaKind | None
    read_avro: AvroReader | None = None
    problem: str | None = None


class SchemaRegistry:
    """Gives schemas by id. Ids mean the same for ever, so what was fetched once is kept; at most MAX_SCHEMAS, the one
    not asked for the longest time goes first.

    `schema` never waits: a schema that is not known yet is asked for by the registry's thread, until it comes. An id
    that the registry itself says it does not have is given up after `unknown_schema_seconds`, as any sender can make
    one up. Safe for several threads. Raises SettingsError when its authorities cannot be read.
    """

    def __init__(self, settings: SchemaRegistrySettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._schemas: OrderedDict[int, Schema] = OrderedDict()
        self._wanted: dict[int, float] = {}
        """Ids that are asked for, and since when the registry says that it has none such."""
        self._trouble: str | None = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._logged_at = float("-inf")
        self._client = open_client(settings)
        self._thread = threading.Thread(target=self._run, name="sluice-schemas", daemon=True)
        self._thread.start()

    def schema(self, schema_id: int) -> Schema | None:
        """The schema; None while it is being fetched."""
        with self._lock:
            found = self._schemas.get(schema_id)
            if found is not None:
                self._schemas.move_to_end(schema_id)
                return found
            if schema_id not in self._wanted:
                self._wanted[schema_id] = float("inf")
                self._wake.set()
            return None

    def want_only(self, ids: Iterable[int]) -> None:
        """Gives up asking for others: nothing waits for them any more."""
        kept = set(ids)
        with self._lock:
            self._wanted = {each: since for each, since in self._wanted.items() if each in kept}

    def trouble(self) -> str | None:
        """Why schemas do not come; None when all is well."""
        return self._trouble

    def close(self) -> None:
        self._closing.set()
        self._wake.set()
        self._thread.join(TIMEOUT_SECONDS)

    def _run(self) -> None:
        with self._client as client:
            while not self._closing.is_set():
                self._wake.wait(RETRY_SECONDS)
                self._wake.clear()
                with self._lock:
                    wanted = list(self._wanted)
                for schema_id in wanted:
                    if self._closing.is_set():
                        return
                    self._fetch(client, schema_id)

    def _fetch(self, client: httpx.Client, schema_id: int) -> None:
        where = f"{self._settings.url.rstrip('/')}/schemas/ids/{schema_id}"
        try:
            with client.stream("GET", where, auth=registry_login(self._settings)) as answer:
                if answer.status_code == httpx.codes.NOT_FOUND:
                    self._not_found(schema_id)
                    return
                answer.raise_for_status()
                body = _read_body(answer)
            self._keep(schema_id, _schema_in(body))
        except httpx.HTTPStatusError as error:
            self._fail(f"answers with status {error.response.status_code}")
        except (httpx.HTTPError, OSError, ValueError, SettingsError) as error:
            self._fail(f"does not answer as one ({type(error).__name__}: {error})")

    def _not_found(self, schema_id: int) -> None:
        now = self._clock()
        with self._lock:
            if schema_id not in self._wanted:
                return
            since = self._wanted[schema_id] = min(self._wanted[schema_id], now)
        if now - since >= self._settings.unknown_schema_seconds:
            self._keep(schema_id, Schema(None, problem=f"the schema registry knows no schema {schema_id}"))
        else:
            self._fail(f"knows no schema {schema_id} yet")

    def _keep(self, schema_id: int, schema: Schema) -> None:
        with self._lock:
            self._wanted.pop(schema_id, None)
            self._schemas[schema_id] = schema
            if len(self._schemas) > MAX_SCHEMAS:
                self._schemas.popitem(last=False)
            if not self._wanted:
                self._trouble = None
        if schema.problem is not None:
            log.warning("schema_not_usable", schema_id=schema_id, problem=schema.problem)

    def _fail(self, why: str) -> None:
        self._trouble = f"the schema registry at {self._settings.url} {why}; records that need it wait"
        now = self._clock()
        if now - self._logged_at >= REMIND_SECONDS:
            self._logged_at = now
            log.warning("schema_registry_fails", problem=self._trouble)


def open_registry(settings: KafkaSettings) -> SchemaRegistry | None:
    """The registry that the settings name. Raises SettingsError."""
    return None if settings.schema_registry is None else SchemaRegistry(settings.schema_registry)


def open_client(settings: SchemaRegistrySettings) -> httpx.Client:
    """An HTTP client for the registry. Raises SettingsError when the authorities cannot be read."""
    try:
        verify = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"{settings.ca_file}: kafka.schema_registry.ca_file cannot be used: {error}") from error
    return httpx.Client(timeout=TIMEOUT_SECONDS, verify=verify, follow_redirects=False)


def registry_login(settings: SchemaRegistrySettings) -> tuple[str, str] | None:
    """User and password. A file is read again at each question, so that a rotated password needs no restart.

    Raises SettingsError.
    """
    if settings.username is None:
        return None
    if settings.password_file is not None:
        return settings.username, read_secret(settings.password_file)
    return settings.username, settings.password.get_secret_value() if settings.password else ""


def _read_body(answer: httpx.Response) -> dict[str, object]:
    body = b""
    for part in answer.iter_bytes():
        body += part
        if len(body) > MAX_SCHEMA_BYTES:
            raise ValueError(f"a schema of more than {MAX_SCHEMA_BYTES} bytes")
    found = httpx.Response(200, content=body).json()
    if isinstance(found, dict) and isinstance(found.get("schema"), str):
        return found
    raise ValueError("an answer without a schema")


def _schema_in(body: dict[str, object]) -> Schema:
    kind = body.get("schemaType", "AVRO")
    if kind == "JSON":
        return Schema("JSON")
    if kind != "AVRO":
        return Schema(None, problem=f"values in {kind} are not read; use Avro or JSON Schema")
    if body.get("references"):
        return Schema(None, problem="an Avro schema that refers to others is not read; register it as one")
    try:
        return Schema("AVRO", avro_reader(str(body["schema"])))
    except UnusableSchema as error:
        return Schema(None, problem=str(error))
