"""The producer's process does what is asked, survives what it should, and ends with the one that started it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from kafka import KafkaConsumer

from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic, Servers
from tests.integration.streams import Stream, assert_each_event_has_one_verdict
from worker.intake.log import CommitFailed, Fenced, LogError, Output
from worker.intake.producer_process import ProducerProcess
from worker.settings import KafkaSettings, TelemetrySettings

PATIENCE_SECONDS = 60.0


@pytest.fixture
def settings(kafka_server: KafkaServer) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, delivery="at_least_once")


@pytest.fixture
def producer(settings: KafkaSettings) -> Iterator[ProducerProcess]:
    with closing(ProducerProcess(settings, TelemetrySettings())) as opened:
        opened.wait_until_ready()
        yield opened


def children_of(pid: int) -> set[int]:
    """The running processes that `pid` has started."""
    started = {
        int(word) for tasks in Path(f"/proc/{pid}/task").glob("*/children") for word in tasks.read_text().split()
    }
    return {child for child in started if not has_ended(child)}


def has_ended(pid: int) -> bool:
    try:
        return "(zombie)" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


def wait_for_the_end_of(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not has_ended(pid):
        assert time.monotonic() < deadline, f"process {pid} still runs"
        time.sleep(0.05)


def test_what_is_sent_lies_in_the_topic(producer: ProducerProcess, settings: KafkaSettings, topic: str) -> None:
    producer.send([Output(topic, b"v%d" % i, b"k", (("h", b"\x00"),)) for i in range(3)])
    consumer = KafkaConsumer(topic, bootstrap_servers=settings.bootstrap_servers, auto_offset_reset="earliest")
    with closing(consumer):
        records = [record for batch in consumer.poll(timeout_ms=30_000).values() for record in batch]
    assert [record.value for record in records] == [b"v0", b"v1", b"v2"]
    assert {(record.key, tuple(record.headers)) for record in records} == {(b"k", (("h", b"\x00"),))}


def test_an_output_that_the_broker_does_not_take_is_told_and_the_next_one_goes(
    producer: ProducerProcess, new_topic: NewTopic
) -> None:
    small, usual = new_topic(configs={"max.message.bytes": "1000"}), new_topic()
    with pytest.raises(CommitFailed, match=f"larger than {small} takes"):
        producer.send([Output(small, b"x" * 5000)])
    producer.send([Output(usual, b"x")])


def test_a_signal_meant_for_the_worker_does_not_stop_what_is_under_way(producer: ProducerProcess, topic: str) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(producer.pid, number)
    producer.send([Output(topic, b"x")])


def test_a_process_that_was_killed_leaves_the_outcome_unknown(producer: ProducerProcess, topic: str) -> None:
    os.kill(producer.pid, signal.SIGKILL)
    with pytest.raises(Fenced, match=r"has ended \(exit code -9\); the outcome"):
        producer.send([Output(topic, b"x")])


def test_a_producer_that_cannot_start_says_why_and_leaves_no_process(settings: KafkaSettings) -> None:
    before = children_of(os.getpid())
    nowhere = settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"})
    with pytest.raises(LogError, match="cannot be used: KafkaTimeoutError"):
        ProducerProcess(nowhere, TelemetrySettings()).wait_until_ready()
    assert children_of(os.getpid()) == before


def test_a_process_whose_worker_is_gone_ends_without_a_traceback(
    settings: KafkaSettings, capfd: pytest.CaptureFixture[str]
) -> None:
    process = ProducerProcess(settings, TelemetrySettings())
    process.close()  # while it starts
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("broker_is_gone", [False, True])
def test_the_process_ends_with_one_that_was_killed(
    settings: KafkaSettings, kafka_server: KafkaServer, topic: str, broker_is_gone: bool
) -> None:
    script = (
        "import sys, time\n"
        "from worker.intake.log import Output\n"
        "from worker.intake.producer_process import ProducerProcess\n"
        "from worker.settings import KafkaSettings, TelemetrySettings\n"
        "producer = ProducerProcess(KafkaSettings.model_validate_json(sys.argv[1]), TelemetrySettings())\n"
        "producer.wait_until_ready()\n"
        "print(producer.pid, flush=True)\n"
        "sys.stdin.readline()\n"
        "producer.send([Output(sys.argv[2], b'x')])\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, settings.model_dump_json(), topic],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not has_ended(child)
        if broker_is_gone:
            kafka_server.kill()
        parent.stdin.write("send\n")
        parent.stdin.flush()
        time.sleep(1.0)  # it is sending by now
        parent.kill()
    wait_for_the_end_of(child)


@pytest.mark.timeout(300)
def test_a_producer_killed_in_mid_stream_costs_no_verdict_and_repeats_none(
    servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path
) -> None:
    count = 600
    stream = Stream(servers, new_topic, unique_name, tmp_path)
    stream.publish(count)
    with stream.reader("verdicts") as verdicts, stream.worker() as worker:
        for _ in range(3):
            verdicts.read_until(verdicts.read() + 1, seconds=60)
            for producer in children_of(worker.pid):
                os.kill(producer, signal.SIGKILL)
        verdicts.read_until(count, seconds=180)
        assert worker.poll() is None, "the worker takes a new producer by itself"
        assert_each_event_has_one_verdict(stream, verdicts, count)
