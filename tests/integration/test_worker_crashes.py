"""A worker is killed in mid-stream where the drills (ops/drills) do not: without transactions."""

import signal
import time
from pathlib import Path

import pytest

from tests.conftest import NewTopic, Servers
from tests.integration.streams import Stream


@pytest.fixture
def stream(servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path) -> Stream:
    return Stream(servers, new_topic, unique_name, tmp_path)


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
