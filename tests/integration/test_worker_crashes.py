"""The worker is killed in mid-stream on real servers; each event must still have exactly one verdict."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from PIL import Image

from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic, Servers

EVENTS = 2000
KILLS = 10
SLUICE = Path(sys.executable).parent / "sluice"


class Stream:
    """Four topics of one test on the real broker, a settings file for them, and 2,000 images on disk."""

    def __init__(self, servers: Servers, new_topic: NewTopic, group: str, folder: Path) -> None:
        self.bootstrap = servers.kafka
        self.topics = {name: new_topic(4) for name in ("images", "verdicts", "review", "dead")}
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

    def publish(self, count: int, *, hurry: threading.Event | None = None) -> None:
        """Makes images and announces them, at ten a second until there is a `hurry`."""
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=20)
        for i in range(count):
            if hurry:
                hurry.wait(0.1)
            path = self.images / f"{i}.png"
            Image.new("RGB", (48, 48), (i % 256, i // 256 * 16, 90)).save(path)
            event = {
                "schema": "sluice.image-event/1",
                "id": f"event-{i}",
                "occurred_at": "2026-11-24T12:00:00Z",
                "image": {"kind": "file", "path": str(path)},
            }
            producer.send(self.topics["images"], key=str(i).encode(), value=json.dumps(event).encode())
        producer.flush()
        producer.close()

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


@pytest.fixture
def stream(servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Stream:
    return Stream(servers, new_topic, unique_name, tmp_path)


def assert_each_event_has_one_verdict(stream: Stream, reader: Reader, count: int) -> None:
    reader.read_rest()
    times = Counter(str(value["event_id"]) for value in reader.values)
    assert len(times) == count
    assert {event: n for event, n in times.items() if n != 1} == {}
    flagged = {str(v["event_id"]) for v in reader.values if v["route"]["action"] == "review"}  # type: ignore[index]
    with stream.reader("review") as items:
        items.read_rest()
        assert Counter(str(item["event_id"]) for item in items.values) == Counter(flagged)


@pytest.mark.timeout(600)
def test_a_worker_killed_ten_times_gives_each_event_one_verdict(stream: Stream) -> None:
    """Events keep coming while the worker dies, so there is always work under way."""
    rng = random.Random(2606)
    hurry = threading.Event()
    publisher = threading.Thread(target=stream.publish, args=(EVENTS,), kwargs={"hurry": hurry})
    publisher.start()
    with stream.reader("verdicts") as verdicts:
        for _ in range(KILLS):
            with stream.worker() as process:
                verdicts.read_until(verdicts.read() + 1, seconds=60)
                time.sleep(rng.uniform(0.0, 1.0))
                assert process.poll() is None, stream.log.read_text()[-4000:]
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                assert publisher.is_alive(), "the kills should come in mid-stream"
        hurry.set()
        with stream.worker() as process:
            verdicts.read_until(EVENTS, seconds=180)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        publisher.join()
        assert_each_event_has_one_verdict(stream, verdicts, EVENTS)
    with stream.reader("dead") as dead:
        dead.read_rest()
        assert dead.values == []


@pytest.mark.timeout(300)
def test_a_broker_killed_in_mid_stream_costs_no_verdict(stream: Stream, kafka_server: KafkaServer) -> None:
    count = 400
    stream.publish(count)
    with stream.worker():
        with stream.reader("verdicts") as verdicts:
            verdicts.read_until(50, seconds=60)
        kafka_server.kill()
        time.sleep(1.0)
        kafka_server.start()
        with stream.reader("verdicts") as verdicts:
            verdicts.read_until(count, seconds=120)
            assert_each_event_has_one_verdict(stream, verdicts, count)


@pytest.mark.timeout(300)
def test_two_workers_share_the_stream_and_one_may_die(stream: Stream) -> None:
    count = 600
    stream.change_kafka(transactional_id=None)  # each takes one of its own
    stream.publish(count)
    with stream.reader("verdicts") as verdicts, stream.worker():
        verdicts.read_until(20, seconds=60)
        with stream.worker() as second:
            time.sleep(8.0)
            second.kill()
            second.wait()
        verdicts.read_until(count, seconds=180)
        assert_each_event_has_one_verdict(stream, verdicts, count)


@pytest.mark.timeout(300)
def test_without_transactions_a_crash_may_repeat_a_verdict_but_never_loses_one(stream: Stream) -> None:
    count = 300
    stream.change_kafka(delivery="at_least_once", transactional_id=None)
    stream.publish(count)
    with stream.reader("verdicts") as verdicts:
        with stream.worker() as process:
            verdicts.read_until(50, seconds=60)
            process.kill()
            process.wait()
        with stream.worker() as process:
            verdicts.read_until_events(count, seconds=120)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        verdicts.read_rest()
        ids = {(value["event_id"], value["verdict_id"]) for value in verdicts.values}
        assert len(ids) == count, "a repeat has the id of the first, so that consumers can drop it"
        before = len(verdicts.values)
        with stream.worker():
            time.sleep(10.0)
        verdicts.read_rest()
        assert len(verdicts.values) == before, "what is committed is not judged again"
