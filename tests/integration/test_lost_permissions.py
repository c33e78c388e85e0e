"""What a worker does when Kafka takes something from it in the middle of its work."""

import base64
import io
import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from PIL import Image

from ops.dev.ports import free_ports
from ops.dev.secure_kafka import SecureKafkaServer
from ops.dev.servers import RedisServer
from tests.integration.secure_stream import SecureStream
from tests.integration.streams import SLUICE
from worker.intake.kafka_log import KafkaLog
from worker.intake.kafka_probe import admin_client, may_use_transactional_id
from worker.intake.log import CommitRefused, LogRefused, Output, OutputsTooLarge
from worker.preflight import KafkaWatch
from worker.settings import TelemetrySettings
from worker.supervision import Supervisor

OCCURRED_AT = "2026-11-30T12:00:00Z"


def _until(true: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture
def stream(secure_kafka: SecureKafkaServer) -> SecureStream:
    return SecureStream(secure_kafka)


@pytest.fixture
def watch(stream: SecureStream) -> Iterator[KafkaWatch]:
    supervisor = Supervisor()
    watch = KafkaWatch(stream.kafka_settings(), interval_seconds=0.2)
    watch.start(supervisor)
    yield watch
    supervisor.close(10.0)


@pytest.mark.parametrize(
    ("kind", "name", "operation"),
    [
        ("topic", "images", "read"),
        ("topic", "verdicts", "write"),
        ("group", "GROUP", "read"),
        ("transactional_id", "GROUP-*", "write"),
    ],
)
def test_a_lost_permission_is_named_until_it_is_given_back(
    stream: SecureStream, watch: KafkaWatch, kind: str, name: str, operation: str
) -> None:
    time.sleep(0.5)
    assert watch.health_problems() == ()
    resource = stream.topics.get(name, name.replace("GROUP", stream.group))
    stream.kafka.forbid(stream.user, kind, resource, [operation])
    _until(lambda: any(resource in problem for problem in watch.health_problems()), 20, "the permission is missed")
    stream.kafka.allow(stream.user, kind, resource, [operation])
    _until(lambda: watch.health_problems() == (), 20, "all is well again")


def test_the_checks_do_not_disturb_a_producer_with_the_same_transactional_id(stream: SecureStream) -> None:
    name = f"{stream.group}-worker"
    producer = KafkaProducer(bootstrap_servers=stream.kafka.bootstrap_servers, transactional_id=name)
    try:
        producer.init_transactions()
        with admin_client(stream.kafka_settings()) as admin:
            assert may_use_transactional_id(admin, name, stream.group), "nor while it has nothing to do"
            producer.begin_transaction()
            producer.send(stream.topics["verdicts"], b"{}", b"key")
            producer.flush()
            assert may_use_transactional_id(admin, name, stream.group), "nor in the middle of a transaction"
            (listed,) = [
                each for found in admin.list_transactions().values() for each in found if each.transactional_id == name
            ]
            described = admin.describe_transactions([name])[name]
            assert {partition.topic for partition in described.topic_partitions} == {stream.topics["verdicts"]}, listed
        producer.commit_transaction()
    finally:
        producer.close(timeout=5)


def test_a_lost_topic_is_named_until_it_is_made_again(stream: SecureStream, watch: KafkaWatch) -> None:
    stream.delete_topic("verdicts")
    _until(lambda: any("does not exist" in problem for problem in watch.health_problems()), 20, "the topic is missed")
    stream.make_topics(("verdicts",))
    _until(lambda: watch.health_problems() == (), 20, "all is well again")


@pytest.fixture
def small_dead_topic(stream: SecureStream) -> None:
    stream.configure("dead", max_message_bytes="100000")


@pytest.fixture
def log(stream: SecureStream) -> Iterator[KafkaLog]:
    log = KafkaLog(stream.kafka_settings(), TelemetrySettings(), topics=[stream.topics["images"]])
    _until(lambda: bool(log.poll(0.2).assigned), 60, "the partitions are assigned")
    yield log
    log.close()


def test_a_refused_commit_is_told_from_one_that_may_be_repeated(stream: SecureStream, log: KafkaLog) -> None:
    topic = stream.topics["verdicts"]
    log.commit([Output(topic, b"{}", b"key")], {})
    stream.kafka.forbid(stream.user, "topic", topic, ["write"])

    def refused() -> bool:
        try:
            log.commit([Output(topic, b"{}", b"key")], {})
        except CommitRefused as error:
            return topic in str(error) and "no permission" in str(error)
        return False

    _until(refused, 20, "the commit is refused")
    stream.kafka.allow(stream.user, "topic", topic, ["write"])

    def succeeds() -> bool:
        try:
            log.commit([Output(topic, b"{}", b"key")], {})
        except CommitRefused:
            return False
        return True

    _until(succeeds, 20, "the commit succeeds again")


def test_outputs_that_a_topic_does_not_take_are_named_by_position(
    stream: SecureStream, small_dead_topic: None, log: KafkaLog
) -> None:
    dead, verdicts = stream.topics["dead"], stream.topics["verdicts"]
    outputs = [Output(verdicts, b"{}", b"a"), Output(dead, b"x" * 500_000, b"b"), Output(dead, b"x" * 1000, b"c")]
    with pytest.raises(OutputsTooLarge) as refused:
        log.commit(outputs, {})
    assert refused.value.limits.keys() == {1}
    limit = refused.value.limits[1]
    assert 90_000 < limit < 100_000
    many = [Output(dead, b"x" * 1000, b"c") for _ in range(300)]  # together more than the topic takes at once
    log.commit([outputs[0], outputs[1]._replace(value=b"x" * limit), *many], {})


def test_a_limit_that_is_lowered_later_is_met_and_learnt(stream: SecureStream, log: KafkaLog) -> None:
    dead = stream.topics["dead"]
    stream.configure("dead", max_message_bytes="300000")
    outputs = [Output(dead, b"x" * 1000, b"b"), Output(dead, b"x" * 500_000, b"b"), Output(dead, b"x" * 1000, b"b")]
    with pytest.raises(OutputsTooLarge) as refused:
        log.commit(outputs, {})
    (limit,) = refused.value.limits.values()
    log.commit([outputs[0], outputs[1]._replace(value=b"x" * limit), outputs[2]], {})


def test_a_log_that_cannot_be_opened_leaves_nothing_behind(stream: SecureStream) -> None:
    stream.kafka.forbid(stream.user, "transactional_id", f"{stream.group}-*", ["write"])
    threads = threading.active_count()
    for _ in range(2):
        with pytest.raises(LogRefused, match="no permission for the transactional id"):
            KafkaLog(stream.kafka_settings(), TelemetrySettings(), topics=[stream.topics["images"]])
    _until(lambda: threading.active_count() <= threads, 10, "the consumer's threads end")
    children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes() for child in children]
    assert not [command for command in commands if b"producer_process" in command]


class Desk:
    """A worker of `sluice up`, and what it wrote."""

    def __init__(self, stream: SecureStream, redis_url: str, folder: Path) -> None:
        self.stream = stream
        (self.port,) = free_ports(1)
        sections = {
            "redis": {"url": redis_url},
            "telemetry": {"metrics_port": self.port},
            "intake": {"retry_max_seconds": 2},
        }
        self.config = stream.write_config(folder / "sluice.yaml", sections)
        self.log = folder / "worker.log"
        self.producer = KafkaProducer(
            bootstrap_servers=stream.kafka.bootstrap_servers, max_request_size=4_000_000, linger_ms=0
        )

    def send(self, event_id: str, image: bytes) -> None:
        reference = {"kind": "inline", "bytes": base64.b64encode(image).decode()}
        event = {"schema": "sluice.image-event/1", "id": event_id, "occurred_at": OCCURRED_AT, "image": reference}
        self.producer.send(self.stream.topics["images"], json.dumps(event).encode(), event_id.encode())
        self.producer.flush()

    def health(self) -> dict[str, Any]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/healthz", timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            return dict(json.load(error))
        except OSError:
            return {"healthy": False, "reasons": ["it does not answer"]}

    def read(self, topic: str) -> list[dict[str, Any]]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.stream.kafka.bootstrap_servers,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        try:
            partitions = [TopicPartition(self.stream.topics[topic], number) for number in range(2)]
            consumer.assign(partitions)
            ends = consumer.end_offsets(partitions)
            found: list[dict[str, Any]] = []
            deadline = time.monotonic() + 5
            while time.monotonic() < deadline and any(consumer.position(p) < ends[p] for p in partitions):
                for records in consumer.poll(timeout_ms=200).values():
                    found.extend(json.loads(record.value) for record in records)
            return found
        finally:
            consumer.close()

    def judged(self) -> set[str]:
        return {verdict["event_id"] for verdict in self.read("verdicts")}


def _png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), (shade, 80, 90)).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_worker_says_what_it_lost_goes_on_by_itself_and_cuts_what_a_topic_does_not_take(
    stream: SecureStream, redis_server: RedisServer, tmp_path: Path
) -> None:
    desk = Desk(stream, redis_server.url, tmp_path)
    verdicts = stream.topics["verdicts"]
    with desk.log.open("wb") as log:
        worker = subprocess.Popen([SLUICE, "up", "--config", desk.config], stdout=log, stderr=log)
    try:
        desk.send("first", _png(1))
        _until(lambda: "first" in desk.judged(), 60, "the first verdict")
        assert desk.health()["healthy"]

        stream.kafka.forbid(stream.user, "topic", verdicts, ["write"])
        desk.send("second", _png(2))
        _until(lambda: any(verdicts in reason for reason in desk.health()["reasons"]), 30, "unhealthy, with the topic")
        assert not desk.health()["healthy"]
        time.sleep(5)
        failures = [line for line in desk.log.read_text().splitlines() if "commit_failed" in line]
        assert 1 <= len(failures) <= 3, "the same failure is not logged at each attempt"
        assert desk.judged() == {"first"}

        stream.kafka.allow(stream.user, "topic", verdicts, ["write"])
        _until(lambda: "second" in desk.judged(), 30, "the second verdict, without a restart")
        _until(lambda: desk.health()["healthy"], 30, "healthy again")

        stream.configure("dead", max_message_bytes="300000")
        stream.configure("review", max_message_bytes="300000", retention_ms="-1")
        desk.send("broken", b"\x89PNG\r\n\x1a\n" + bytes(600_000))
        for number in range(3):
            desk.send(f"other-{number}", _png(10 + number))
        expected = {"first", "second", "broken", "other-0", "other-1", "other-2"}
        _until(lambda: desk.judged() == expected, 40, "a verdict for each event, the broken one among them")
        (letter,) = desk.read("dead")
        assert letter["event_id"] == "broken"
        assert letter["payload_size"] > 800_000
        assert 100_000 < len(base64.b64decode(letter["payload"])) < 300_000
        assert "was cut" in letter["failure"]["message"]
        items = {item["event_id"]: item for item in desk.read("review")}
        assert items["broken"]["image"] is None
        assert "left out" in items["broken"]["failure"]["message"]
    finally:
        worker.terminate()
        worker.wait(60)
        desk.producer.close()
    assert worker.returncode == 0
