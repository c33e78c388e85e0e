"""An image at which the process really dies, as in a fault of a codec: the embedded worker is killed by it and started
again, as by whoever watches over it, until all is judged."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from schemas import ImageEvent, InlineReference
from tests.unit.intake.pictures import png
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import Settings

DEADLY = 77
WORKER = f"""
import os, signal, sys, threading, time
from pathlib import Path
import numpy as np
from worker.images import decoded_views
from worker.intake.embedded import open_embedded_topics
from worker.settings import Settings
from worker import wiring

data, count = Path(sys.argv[1]), int(sys.argv[2])
make_views = decoded_views.make_views

def deadly(pixels, views):
    if pixels[0, 0, 0] == {DEADLY}:
        time.sleep(0.05)  # its neighbours are under way too
        os.kill(os.getpid(), signal.SIGKILL)
    return make_views(pixels, views)

class Engine:
    max_batch = 64

    def __init__(self, model):
        self.model = model

    def infer(self, views, prompts=None):
        rows = len(next(iter(views.values())))
        return {{tower.name: np.ones((rows, tower.features), np.float32) for tower in self.model.manifest.towers}}

    def close(self): ...

decoded_views.make_views = deadly
wiring.open_engine = lambda settings, model: Engine(model)
settings = Settings(telemetry={{"metrics_port": None}})
worker = wiring.build_embedded_worker(settings, data)
stop = threading.Event()

def watch():
    topics = open_embedded_topics(settings, data)
    while sum(topics.ends(settings.kafka.topics.verdicts).values()) < count:
        time.sleep(0.05)
    stop.set()

threading.Thread(target=watch, daemon=True).start()
worker.run(stop)
"""


@pytest.mark.integration
def test_an_image_that_kills_the_process_becomes_a_dead_letter_and_its_neighbours_are_judged(tmp_path: Path) -> None:
    settings = Settings()
    topics = open_embedded_topics(settings, tmp_path)
    count = 24
    for i in range(count):
        image = InlineReference(bytes=png(red=DEADLY if i == 9 else 100 + i))
        event = ImageEvent(id=str(i), occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=image)
        topics.append([Output(settings.kafka.topics.images, event.model_dump_json(by_alias=True).encode(), b"one key")])

    codes = []
    while not codes or codes[-1] != 0:
        assert len(codes) < 6, f"it goes on dying: {codes}"
        done = subprocess.run(
            [sys.executable, "-c", WORKER, str(tmp_path), str(count)],
            env=os.environ | {"PYTHONPATH": str(Path.cwd())},
            timeout=300,
            check=False,
        )
        codes.append(done.returncode)

    assert codes == [-9] * 4 + [0]
    verdicts = [
        json.loads(record.value or b"")
        for record in topics.read(topics.starts(settings.kafka.topics.verdicts), max_records=1000)
    ]
    topics.close()
    assert sorted(int(verdict["event_id"]) for verdict in verdicts) == list(range(count)), "each once"
    failures = {verdict["event_id"]: verdict["failure"]["reason"] for verdict in verdicts if verdict["failure"]}
    assert failures == {"9": "crashed_worker"}
