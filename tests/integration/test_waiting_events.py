"""Events whose store is down wait in a retry topic, whatever is killed meanwhile, and the others go on."""

import json
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from PIL import Image

from tests.conftest import NewTopic, Servers
from tests.integration.streams import SLUICE
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Partition
from worker.settings import Settings, TopicSettings

PATIENCE_SECONDS = 90.0
WAITING = 30
OTHERS = 30
INTAKE = {"retry_hold_seconds": 2.0, "retry_delays_seconds": [3.0, 4.0, 5.0], "retry_base_seconds": 0.5}


class ImageServer:
    """Serves one image under each path, or 503 while it is `down`."""

    def __init__(self) -> None:
        self.down = True
        buffer = BytesIO()
        Image.new("RGB", (48, 48), (200, 90, 10)).save(buffer, "PNG")
        picture = buffer.getvalue()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(503 if server.down else 200)
                self.send_header("Content-Length", "0" if server.down else str(len(picture)))
                self.end_headers()
                if not server.down:
                    self.wfile.write(picture)

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def store() -> Iterator[ImageServer]:
    with closing(ImageServer()) as server:
        yield server


class Site(Protocol):
    """Where a worker runs."""

    topics: TopicSettings
    command: Sequence[object]

    def publish(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        """Keys and values, into one partition in their order."""

    def read(self, topic: str) -> list[dict[str, Any]]:
        """The committed records of a topic."""


class KafkaSite:
    def __init__(self, servers: Servers, new_topic: NewTopic, group: str, folder: Path) -> None:
        self._bootstrap = servers.kafka
        self.topics = TopicSettings(**{name: new_topic(1) for name in TopicSettings.model_fields})
        kafka = {
            "bootstrap_servers": servers.kafka,
            "group_id": group,
            "group_instance_id": group,
            "topics": self.topics.model_dump(),
            "session_timeout_seconds": 6,
        }
        self.command = (*COMMAND, _config(folder, kafka=kafka, redis={"url": servers.redis_url}))

    def publish(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        with closing(KafkaProducer(bootstrap_servers=self._bootstrap)) as producer:
            for key, value in events:
                producer.send(self.topics.images, key=key, value=value)
            producer.flush()

    def read(self, topic: str) -> list[dict[str, Any]]:
        partition = TopicPartition(topic, 0)
        consumer = KafkaConsumer(bootstrap_servers=self._bootstrap, isolation_level="read_committed")
        try:
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            (end,) = consumer.end_offsets([partition]).values()
            found: list[dict[str, Any]] = []
            while consumer.position(partition) < end:
                for records in consumer.poll(timeout_ms=200).values():
                    found += [json.loads(record.value) for record in records]
            return found
        finally:
            consumer.close()


class EmbeddedSite:
    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self.topics = TopicSettings()
        self.command = (*COMMAND, _config(folder), "--embedded", "--data", self._data)

    def publish(self, events: Sequence[tuple[bytes, bytes]]) -> None:
        with closing(open_embedded_topics(Settings(), self._data)) as topics:
            topics.append([Output(self.topics.images, value, key) for key, value in events])

    def read(self, topic: str) -> list[dict[str, Any]]:
        with closing(open_embedded_topics(Settings(), self._data)) as topics:
            positions: dict[Partition, int] = dict.fromkeys(topics.ends(topic), 0)
            return [json.loads(record.value or b"") for record in topics.read(positions, max_records=10_000)]


COMMAND = (SLUICE, "up", "--config")


def _config(folder: Path, **sections: object) -> Path:
    path = folder / "sluice.yaml"
    common = {
        "intake": INTAKE,
        "http": {"allowed_hosts": ["127.0.0.1"]},
        "files": {"roots": [str(folder)]},
        "telemetry": {"log_format": "json"},
    }
    path.write_text(yaml.safe_dump({**common, **sections}))
    return path


@pytest.fixture(params=["kafka", "embedded"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    if request.param == "embedded":
        return EmbeddedSite(tmp_path)
    fixture = request.getfixturevalue
    return KafkaSite(fixture("servers"), fixture("new_topic"), fixture("unique_name"), tmp_path)


@contextmanager
def worker(site: Site, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "worker.log").open("ab") as log:
        process = subprocess.Popen([str(part) for part in site.command], stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def event(name: str, image: dict[str, str]) -> tuple[bytes, bytes]:
    value = {
        "schema": "sluice.image-event/1",
        "id": name,
        "occurred_at": "2026-11-24T12:00:00Z",
        "image": image,
    }
    return name.encode(), json.dumps(value).encode()


def until(folder: Path, what: str, count: int, read: "Counting") -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while read() < count:
        assert time.monotonic() < deadline, (
            f"{read()} of {count} {what}:\n{(folder / 'worker.log').read_text()[-3000:]}"
        )
        time.sleep(0.2)


class Counting(Protocol):
    def __call__(self) -> int: ...


@pytest.mark.timeout(300)
def test_events_wait_for_their_store_over_a_kill_while_the_others_go_on(
    site: Site, store: ImageServer, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.png"
    Image.new("RGB", (48, 48), (10, 90, 200)).save(picture)
    waiting = [event(f"waiting-{i}", {"kind": "http", "url": f"{store.address}/{i}.png"}) for i in range(WAITING)]
    others = [event(f"other-{i}", {"kind": "file", "path": str(picture)}) for i in range(OTHERS)]
    site.publish([each for pair in zip(waiting, others, strict=True) for each in pair])

    with worker(site, tmp_path) as process:
        until(tmp_path, "others", OTHERS, lambda: len(site.read(site.topics.verdicts)))
        early = site.read(site.topics.verdicts)
        assert {verdict["event_id"] for verdict in early} == {f"other-{i}" for i in range(OTHERS)}
        until(tmp_path, "moved", WAITING, lambda: len(site.read(site.topics.retry_1)))
        process.kill()  # while they wait
        process.wait()
    with worker(site, tmp_path):
        until(tmp_path, "moved again", WAITING, lambda: len(site.read(site.topics.retry_2)))
        store.down = False
        until(tmp_path, "verdicts", WAITING + OTHERS, lambda: len(site.read(site.topics.verdicts)))
        time.sleep(1.0)  # a second verdict on one event would show

    verdicts = site.read(site.topics.verdicts)
    assert Counter(verdict["event_id"] for verdict in verdicts) == Counter(
        [f"waiting-{i}" for i in range(WAITING)] + [f"other-{i}" for i in range(OTHERS)]
    )
    assert {verdict["status"] for verdict in verdicts} == {"scored"}
    assert {verdict["source"]["topic"] for verdict in verdicts} == {site.topics.images}
    places = [(verdict["source"]["partition"], verdict["source"]["offset"]) for verdict in verdicts]
    assert len(set(places)) == WAITING + OTHERS, "each names its own first place"
    assert site.read(site.topics.dead) == []
