"""A worker is killed in mid-stream where the drills (ops/drills) do not: beside another, and without transactions."""

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import NewTopic, Servers
from tests.integration.streams import Stream, assert_each_event_has_one_verdict


@pytest.fixture
def stream(servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Stream:
    return Stream(servers, new_topic, unique_name, tmp_path)


@pytest.mark.timeout(300)
def test_two_workers_share_the_stream_and_one_may_die(stream: Stream) -> None:
    count = 400
    stream.change_kafka(transactional_id=None)  # each takes one of its own
    stream.publish(count)
    with stream.reader("verdicts") as verdicts, stream.worker():
        verdicts.read_until(20, seconds=60)
        with stream.worker() as second:
            time.sleep(4.0)
            second.kill()
            second.wait()
        verdicts.read_until(count, seconds=180)
        assert_each_event_has_one_verdict(stream, verdicts, count)


@pytest.mark.timeout(300)
def test_without_transactions_a_crash_may_repeat_a_verdict_but_never_loses_one(stream: Stream) -> None:
    count = 150
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
        with stream.worker() as process:
            time.sleep(5.0)
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) == 0
        verdicts.read_rest()
        assert len(verdicts.values) == before, "what is committed is not judged again"
