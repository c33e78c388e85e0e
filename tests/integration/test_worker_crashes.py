"""The worker is killed in mid-stream on real servers; each event must still have exactly one verdict."""

import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest

from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic, Servers
from tests.integration.streams import Stream, assert_each_event_has_one_verdict

EVENTS = 1000
KILLS = 5  # `make drills` does ten


@pytest.fixture
def stream(servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Stream:
    return Stream(servers, new_topic, unique_name, tmp_path)


@pytest.mark.timeout(600)
def test_a_worker_killed_again_and_again_gives_each_event_one_verdict(stream: Stream) -> None:
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
