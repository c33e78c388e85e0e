"""Events in Avro on a real broker, with their schemas in a registry.

The registry is a small HTTP server with the answers of Confluent's API, which Karapace and Apicurio have too.
"""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fastavro
import pytest
from kafka import KafkaProducer

from ops.dev.ports import free_ports
from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic
from worker.intake import schema_registry
from worker.intake.kafka_client import open_kafka_log
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, parse
from worker.intake.schema_registry import SchemaRegistry
from worker.preflight.finding import CheckStatus
from worker.preflight.schemas import check_registry
from worker.settings import KafkaSettings, SchemaRegistrySettings, TelemetrySettings

AVRO = json.dumps(
    {
        "type": "record",
        "name": "ImageEvent",
        "fields": [
            {"name": "schema", "type": "string"},
            {"name": "id", "type": "string"},
            {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {
                "name": "image",
                "type": {
                    "type": "record",
                    "name": "S3",
                    "fields": [{"name": name, "type": "string"} for name in ("kind", "bucket", "key")],
                },
            },
        ],
    }
)


class Registry:
    """Started when a test asks for it, on a port that was told before."""

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self._port}/apis/ccompat"
        self.schemas: dict[int, dict[str, object]] = {7: {"schema": AVRO}, 8: {"schema": "{}", "schemaType": "JSON"}}
        self.asked: list[tuple[str, str]] = []
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        registry = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append((self.path, self.headers.get("Authorization", "")))
                path = self.path.removeprefix("/apis/ccompat")
                body: Any = {"error_code": 40403, "message": "Schema not found"}
                found = None
                if path == "/schemas/types":
                    body, found = ["AVRO", "JSON"], True
                elif (found := registry.schemas.get(int(path.rpartition("/")[2]))) is not None:
                    body = found
                content = json.dumps(body).encode()
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(schema_registry, "RETRY_SECONDS", 0.2)
    server = Registry()
    yield server
    server.stop()


def _until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def _framed(schema_id: int, data: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + data


def _event(number: int) -> dict[str, Any]:
    image = {"kind": "s3", "bucket": "b", "key": "k"}
    return {"schema": "sluice.image-event/1", "id": f"event-{number}", "occurred_at": 1_795_608_000_000, "image": image}


def _avro(number: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(AVRO)), _event(number))
    return _framed(7, out.getvalue())


@pytest.mark.parametrize("client", ["kafka-python", "librdkafka"])
def test_events_wait_in_order_while_the_registry_is_away_and_are_read_once_it_answers(
    kafka_server: KafkaServer, new_topic: NewTopic, unique_name: str, registry: Registry, client: str
) -> None:
    topics = {name: new_topic(partitions=2) for name in ("images", "verdicts", "review", "dead")}
    settings = KafkaSettings.model_validate(
        {
            "bootstrap_servers": kafka_server.bootstrap_servers,
            "client": client,
            "group_id": unique_name,
            "topics": topics,
            "schema_registry": {"url": registry.url},
        }
    )
    plain = json.dumps({**_event(2), "occurred_at": "2026-11-24T12:00:00Z"}).encode()
    with KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers) as producer:
        for value in (_avro(0), _framed(8, plain), plain, _framed(7, b"\x06")):
            producer.send(topics["images"], value, partition=0)
        producer.send(topics["images"], plain, partition=1)
        producer.flush()
    log = open_kafka_log(settings, TelemetrySettings(), topics=[topics["images"]])
    try:
        records: list[Record] = []

        def read(partition: int, count: int) -> bool:
            records.extend(log.poll(0.1).records)
            return sum(record.partition.number == partition for record in records) >= count

        _until(lambda: read(1, 1), "the partition that needs no schema is read")
        _until(lambda: not read(0, 1) and bool(log.health_problems()), "the registry is named")
        (problem,) = log.health_problems()
        assert problem.startswith(f"the schema registry at {registry.url} does not answer")
        _until(lambda: log.lag().held == {Partition(topics["images"], 0)}, "the partition counts as held back")

        registry.start()
        _until(lambda: read(0, 4), "all is read once the registry answers")
        held = [record for record in records if record.partition.number == 0]
        assert [record.offset for record in held] == [0, 1, 2, 3]
        assert [parse(record).events[0].id for record in held[:3]] == ["event-0", "event-2", "event-2"]
        with pytest.raises(MalformedRecord, match="does not fit its Avro schema"):
            parse(held[3])
        assert log.health_problems() == ()
        assert len(registry.asked) == 2, "each schema is fetched once"
    finally:
        log.close()


@pytest.mark.integration
def test_a_password_of_a_file_is_sent_and_an_id_that_nobody_knows_is_given_up(
    registry: Registry, tmp_path: Path
) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    registry.start()
    settings = SchemaRegistrySettings(
        url=registry.url, username="sluice", password_file=password, unknown_schema_seconds=0.5
    )
    client = SchemaRegistry(settings)
    try:
        assert client.schema(99) is None
        _until(lambda: client.trouble() is not None, "it says what it waits for")
        assert "knows no schema 99 yet" in str(client.trouble())
        _until(lambda: client.schema(99) is not None, "it is given up")
        assert "knows no schema 99" in str(client.schema(99))
        assert client.trouble() is None
        path, authorization = registry.asked[0]
        assert path == "/apis/ccompat/schemas/ids/99"
        assert authorization == "Basic " + base64.b64encode(b"sluice:secret").decode()
    finally:
        client.close()


@pytest.mark.integration
def test_schemas_that_are_not_read_say_why(registry: Registry) -> None:
    registry.schemas = {
        1: {"schema": "syntax", "schemaType": "PROTOBUF"},
        2: {"schema": '"string"', "references": [{"name": "x", "subject": "x", "version": 1}]},
        3: {"schema": "no JSON"},
    }
    registry.start()
    client = SchemaRegistry(SchemaRegistrySettings(url=registry.url))
    try:
        for schema_id, why in ((1, "PROTOBUF are not read"), (2, "refers to others"), (3, "cannot be read")):
            _until(lambda schema_id=schema_id: client.schema(schema_id) is not None, why)
            assert why in str(client.schema(schema_id))
    finally:
        client.close()


@pytest.mark.integration
def test_the_doctor_asks_the_registry(registry: Registry) -> None:
    settings = SchemaRegistrySettings(url=registry.url)
    (finding,) = check_registry(settings)
    assert finding.status is CheckStatus.WRONG
    assert "does not answer" in finding.detail
    registry.start()
    (finding,) = check_registry(settings)
    assert finding.status is CheckStatus.OK


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"url": "http://user:password@host"}, "without credentials"),
        ({"url": "http://host", "username": "u"}, "must be set together"),
        ({"url": "http://host", "password": "p"}, "must be set together"),
        ({"url": "http://host", "username": "u", "password": "p", "password_file": "f"}, "both set"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        SchemaRegistrySettings.model_validate(settings)
