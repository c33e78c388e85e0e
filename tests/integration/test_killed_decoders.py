"""Decoder processes that are killed while a stream is judged cost no event."""

import json
import os
import signal
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas import ImageEvent, InlineReference
from tests.unit.intake.pictures import png
from worker import wiring
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import ImageSettings, Settings, TelemetrySettings

COUNT = 150
SECONDS = 120


class Engine:
    max_batch = 64

    def __init__(self, model: Any) -> None:
        self._towers = model.manifest.towers

    def infer(self, views: dict[str, Any], prompts: object = None) -> dict[str, Any]:
        rows = len(next(iter(views.values())))
        return {tower.name: np.ones((rows, tower.features), np.float32) for tower in self._towers}

    def close(self) -> None: ...


def decoders() -> list[int]:
    """Those of this process."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = status.read_text().rpartition(")")[2].split()[1]
            if int(parent) == os.getpid() and b"decoder_child" in (status.parent / "cmdline").read_bytes():
                found.append(int(status.parent.name))
        except OSError:  # it has ended
            continue
    return found


@pytest.mark.integration
def test_decoders_that_are_killed_in_mid_stream_lose_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wiring, "open_engine", lambda settings, model: Engine(model))
    settings = Settings(images=ImageSettings(decoder_processes="all"), telemetry=TelemetrySettings(metrics_port=None))
    worker = wiring.build_embedded_worker(settings, tmp_path)
    topics = open_embedded_topics(settings, tmp_path)
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    killed = 0
    try:
        deadline = time.monotonic() + SECONDS
        for number in range(COUNT):
            image = InlineReference(bytes=png(red=number))
            event = ImageEvent(id=str(number), occurred_at=datetime.now(UTC), image=image)
            topics.append([Output(settings.kafka.topics.images, event.model_dump_json(by_alias=True).encode())])
            if number % 50 == 25:  # those that have just been at work
                for pid in decoders():
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            time.sleep(0.005)
        while sum(topics.ends(settings.kafka.topics.verdicts).values()) < COUNT:
            assert time.monotonic() < deadline, "not all were judged"
            time.sleep(0.05)
    finally:
        stop.set()
        thread.join(SECONDS)
        verdicts = [
            json.loads(record.value or b"")
            for record in topics.read(topics.starts(settings.kafka.topics.verdicts), max_records=1000)
        ]
        topics.close()
    assert killed > 0
    assert sorted(int(verdict["event_id"]) for verdict in verdicts) == list(range(COUNT)), "each once"
    assert [verdict["failure"] for verdict in verdicts if verdict["failure"]] == []
    assert decoders() == [], "they end with the worker"
