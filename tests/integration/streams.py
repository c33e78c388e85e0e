"""A stream of image events on the real servers, and what came of them: for tests of whole workers."""

import itertools
import json
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from PIL import Image

from ops.dev.worker_topics import WORKER_TOPICS
from tests.conftest import NewTopic, Servers

SLUICE = Path(sys.executable).parent / "sluice"


class Stream:
    """The topics of one test on the real broker, a settings file for them, and the images that are announced."""

    def __init__(self, servers: Servers, new_topic: NewTopic, group: str, folder: Path) -> None:
        self.bootstrap = servers.kafka
        self.group = group
        self.topics = {name: new_topic(4) for name in WORKER_TOPICS}
        self.images = folder / "images"
        self.images.mkdir()
        self.config = folder / "sluice.yaml"
        self.config.write_text(
            yaml.safe_dump(
                {
                    "kafka": {
                        "bootstrap_servers": servers.kafka,
                        "group_id": group,
                        "topics": self.topics,
                        "transactional_id": group,
                        "session_timeout_seconds": 6,
                    },
                    "redis": {"url": servers.redis_url},
                    "files": {"roots": [str(self.images)]},
                    "telemetry": {"log_format": "json"},
                }
            )
        )
        self.log = folder / "worker.log"

    def change_kafka(self, **changes: object) -> None:
        settings = yaml.safe_load(self.config.read_text())
        settings["kafka"] |= changes
        self.config.write_text(yaml.safe_dump(settings))

    def publish(self, count: int) -> None:
        """Makes images and announces them."""
        with self._producer() as producer:
            for i in range(count):
                self._announce(producer, i)

    def publish_until(self, stop: threading.Event) -> int:
        """Makes images and announces them, ten a second until `stop`; returns how many."""
        with self._producer() as producer:
            for i in itertools.count():
                if stop.wait(0.1):
                    return i
                self._announce(producer, i)
        raise AssertionError("unreachable")

    @contextmanager
    def _producer(self) -> Iterator[KafkaProducer]:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=20)
        yield producer
        producer.flush()
        producer.close()

    def _announce(self, producer: KafkaProducer, i: int) -> None:
        path = self.images / f"{i}.png"
        Image.new("RGB", (48, 48), (i % 256, i // 256 * 16, 90)).save(path)
        event = {
            "schema": "sluice.image-event/1",
            "id": f"event-{i}",
            "occurred_at": "2026-11-24T12:00:00Z",
            "image": {"kind": "file", "path": str(path)},
        }
        producer.send(self.topics["images"], key=str(i).encode(), value=json.dumps(event).encode())

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        with self.log.open("ab") as log:
            process = subprocess.Popen([SLUICE, "up", "--config", self.config], stdout=log, stderr=log)
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    @contextmanager
    def reader(self, topic: str) -> Iterator["Reader"]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.bootstrap, isolation_level="read_committed", auto_offset_reset="earliest"
        )
        consumer.assign([TopicPartition(self.topics[topic], p) for p in range(4)])
        try:
            yield Reader(consumer)
        finally:
            consumer.close()


class Reader:
    """Reads committed records, from the beginning on."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self._consumer = consumer
        self.values: list[dict[str, object]] = []

    def read(self, seconds: float = 0.2) -> int:
        """Reads what is there; returns how many values were read since the beginning."""
        for records in self._consumer.poll(timeout_ms=int(seconds * 1000)).values():
            self.values.extend(json.loads(record.value) for record in records)
        return len(self.values)

    def read_until(self, count: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while self.read() < count:
            assert time.monotonic() < deadline, f"only {len(self.values)} of {count} records after {seconds} s"

    def read_until_events(self, count: int, seconds: float) -> None:
        """As `read_until`, but repeats do not count."""
        deadline = time.monotonic() + seconds
        while len({value["event_id"] for value in self.values}) < count:
            self.read()
            assert time.monotonic() < deadline, f"not {count} events after {seconds} s"

    def read_rest(self) -> None:
        """Reads on until nothing has come for two seconds: what is there twice must have time to show."""
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 2.0:
            before = len(self.values)
            if self.read() > before:
                quiet_since = time.monotonic()


def assert_each_event_has_one_verdict(stream: Stream, reader: Reader, count: int) -> None:
    reader.read_rest()
    times = Counter(str(value["event_id"]) for value in reader.values)
    assert len(times) == count
    assert {event: n for event, n in times.items() if n != 1} == {}
    flagged = {str(v["event_id"]) for v in reader.values if v["route"]["action"] == "review"}  # type: ignore[index]
    with stream.reader("review") as items:
        items.read_rest()
        assert Counter(str(item["event_id"]) for item in items.values) == Counter(flagged)
