"""Workers of an older version and of this one in one group: no event is lost, none is judged twice."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from schemas import Verdict
from tests.conftest import NewTopic, Servers
from tests.integration.streams import Stream, assert_each_event_has_one_verdict

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
OLDER = os.environ.get("SLUICE_UPGRADE_FROM", "e4e28ca")
"""The version to upgrade from. Move it on with each release, to the release before."""
CODE = ("worker", "schemas", "trt_build")


@pytest.fixture
def older_code(tmp_path: Path) -> Path:
    folder = tmp_path / "older"
    folder.mkdir()
    archive = subprocess.run(["git", "archive", OLDER, *CODE], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this clone's history has no {OLDER}")
    subprocess.run(["tar", "x", "-C", folder], input=archive.stdout, check=True)
    return folder


@contextmanager
def worker_of(code: Path, config: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", "from worker.cli.main import app; app()", "up", "--config", str(config)]
    environment = {**os.environ, "PYTHONPATH": str(code)}
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=code, env=environment, stdout=output, stderr=output)
        try:
            yield process
        finally:
            process.kill()
            process.wait(30)


def rebalances(log: Path) -> int:
    """How often the worker was given partitions."""
    return sum('"assigned": ["' in line or '"assigned":["' in line for line in log.read_text().splitlines())


def wait_for_partitions(log: Path, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not rebalances(log):
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_an_upgrade_in_mid_stream_loses_and_doubles_nothing_though_a_new_worker_dies(
    servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path, older_code: Path
) -> None:
    stream = Stream(servers, new_topic, unique_name, tmp_path)
    stream.change_kafka(transactional_id=None)  # workers beside each other, each with one of its own
    logs = [tmp_path / f"{name}.log" for name in ("old", "dies", "new")]
    stop = threading.Event()
    published: list[int] = []
    publisher = threading.Thread(target=lambda: published.append(stream.publish_until(stop)))
    with stream.reader("verdicts") as reader, worker_of(older_code, stream.config, logs[0]) as old:
        publisher.start()
        try:
            reader.read_until(10, seconds=60)
            with worker_of(ROOT, stream.config, logs[1]) as dies:
                wait_for_partitions(logs[1])
                reader.read_until(reader.read() + 10, seconds=60)
                dies.kill()
            with worker_of(ROOT, stream.config, logs[2]) as new:
                wait_for_partitions(logs[2])
                old.send_signal(signal.SIGTERM)
                assert old.wait(60) == 0, logs[0].read_text()[-3000:]
                reader.read_until(reader.read() + 10, seconds=60)
                stop.set()
                publisher.join(30)
                reader.read_until(published[0], seconds=60)
                assert_each_event_has_one_verdict(stream, reader, published[0])
                assert new.poll() is None
        finally:
            stop.set()
            publisher.join(30)
    for value in reader.values:
        Verdict.model_validate(value)  # those of the older version too
