"""Twenty thousand events flow through one worker, and its memory stays what it was after two thousand."""

import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from schemas import FileReference, ImageEvent
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import Settings, TopicSettings

SLUICE = Path(sys.executable).parent / "sluice"
EVENTS, IMAGES = 20_000, 300


def resident_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"process {pid} has no resident memory")


@pytest.mark.integration
@pytest.mark.timeout(600)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_is_flat_from_the_two_thousandth_event_to_the_last(tmp_path: Path) -> None:
    paths = []
    for i in range(IMAGES):
        path = tmp_path / f"{i}.jpg"
        Image.new("RGB", (512, 512), (i % 256, i // 256 * 99, 40)).save(path)
        paths.append(path)
    data = tmp_path / "data"
    now = datetime.now(UTC)
    events = [
        ImageEvent(id=f"event-{i}", occurred_at=now, image=FileReference(path=str(paths[i * 7 % IMAGES])))
        for i in range(EVENTS)
    ]
    names = TopicSettings()
    with closing(open_embedded_topics(Settings(), data)) as topics:
        topics.append([Output(names.images, e.model_dump_json().encode(), e.id.encode()) for e in events])
        command = [SLUICE, "up", "--embedded", "--data", str(data)]
        with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
            try:

                def wait_for(count: int) -> int:
                    """Memory when so many verdicts are written."""
                    while sum(topics.ends(names.verdicts).values()) < count:
                        assert process.poll() is None, (tmp_path / "log").read_text()[-2000:]
                        time.sleep(0.01)
                    return resident_bytes(process.pid)

                early = wait_for(2000)
                late = [wait_for(count) for count in range(4000, EVENTS + 1, 2000)]
            finally:
                process.terminate()
    assert max(late) < 1.1 * early, f"{early:,} bytes after 2,000 events, then {[f'{value:,}' for value in late]}"
