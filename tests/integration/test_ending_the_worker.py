"""How `sluice up` ends: told to, with images under way that never come; and by itself, when its engine is lost."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import HttpReference, ImageEvent, ImageReference, InlineReference
from tests.unit.intake.pictures import png
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import Settings

pytestmark = pytest.mark.integration

LOST = 77
UP = f"""
import sys, threading
import numpy as np
from worker import wiring
from worker.cli.main import app
from worker.scoring.engine import EngineLost

class Engine:
    max_batch = 64

    def __init__(self, model):
        self.model = model

    def infer(self, views, prompts=None):
        rows = next(iter(views.values()))
        if (rows[:, 0, 0, 0] == {LOST}).any():
            threading.Thread(target=threading.Event().wait, name="sluice-engine-driver").start()  # it hangs for ever
            raise EngineLost("the GPU is gone")
        return {{tower.name: np.ones((len(rows), tower.features), np.float32) for tower in self.model.manifest.towers}}

    def close(self): ...

wiring.open_engine = lambda settings, model: Engine(model)
app(["up", "--config", sys.argv[1], "--embedded", "--data", sys.argv[2]])
"""


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections, and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


class Up:
    """`sluice up --embedded` on a stand-in for the engine, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.config = folder / "sluice.yaml"
        self.config.write_text(
            "http: {allowed_hosts: [127.0.0.1]}\n"
            "images: {fetch_timeout_seconds: 300}\n"
            "intake: {drain_seconds: 300}\n"
            "telemetry: {log_format: json}\n"
        )
        self.topics = open_embedded_topics(Settings(), self.data)

    def publish(self, name: str, image: ImageReference, key: bytes = b"one key") -> None:
        event = ImageEvent(id=name, occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=image)
        value = event.model_dump_json(by_alias=True).encode()
        self.topics.append([Output(Settings().kafka.topics.images, value, key)])

    def start(self) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-c", UP, str(self.config), str(self.data)],
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            stderr=subprocess.PIPE,
            text=True,
        )

    def verdicts(self) -> list[str]:
        topic = Settings().kafka.topics.verdicts
        records = self.topics.read(self.topics.starts(topic), max_records=10_000)
        return [json.loads(record.value or b"")["event_id"] for record in records]

    def committed(self) -> int:
        settings = Settings().kafka
        return sum(self.topics.committed(settings.group_id, settings.topics.images).values())


def wait_for_verdicts(up: Up, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(up.verdicts()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_that_is_told_to_stop_waits_for_no_image_and_keeps_what_was_judged(
    tmp_path: Path, silent_server: str
) -> None:
    up = Up(tmp_path)
    for i in range(8):
        up.publish(f"judged-{i}", InlineReference(bytes=png(100 + i)))
    for i in range(500):
        up.publish(f"waits-{i}", HttpReference(url=f"{silent_server}/{i}"))
    worker = up.start()
    wait_for_verdicts(up, 8)
    asked = time.monotonic()
    worker.send_signal(signal.SIGTERM)
    _, said = worker.communicate(timeout=120)
    took = time.monotonic() - asked

    assert worker.returncode == 0, said
    assert took < 30, "five seconds on a quiet machine, where the images' time limit is five minutes"
    assert sorted(up.verdicts()) == [f"judged-{i}" for i in range(8)]
    assert up.committed() == 8


def test_a_worker_whose_engine_is_lost_ends_with_an_error_after_it_has_committed_what_was_judged(
    tmp_path: Path,
) -> None:
    up = Up(tmp_path)
    for i in range(8):
        up.publish(f"judged-{i}", InlineReference(bytes=png(100 + i)))
    worker = up.start()
    wait_for_verdicts(up, 8)
    up.publish("deadly", InlineReference(bytes=png(LOST)))
    _, said = worker.communicate(timeout=120)

    assert worker.returncode == 1, said
    assert "error: the GPU is gone" in said
    assert len(up.verdicts()) == up.committed() == 8
