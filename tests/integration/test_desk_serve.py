"""`sluice desk serve`: the desk in a process of its own."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

PATIENCE = 60.0
COMMAND = [str(Path(sys.executable).with_name("sluice")), "desk", "serve"]


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        environment = os.environ | {"SLUICE_WEB__PORT": "0", "SLUICE_TELEMETRY__METRICS_PORT": "0"}
        log = (tmp_path / "log").open("w")
        return subprocess.Popen([*COMMAND, "--data", str(tmp_path / "data")], stderr=log, text=True, env=environment)

    return start


def test_it_serves_page_health_and_metrics_until_sigterm(
    started: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = started()
    try:
        log = ""
        deadline = time.monotonic() + PATIENCE
        while "telemetry_listening" not in log and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
            log = (tmp_path / "log").read_text()
        page = re.search(r"review desk: (\S+)", log)
        listening = [json.loads(line) for line in log.splitlines() if "telemetry_listening" in line]
        assert page is not None, log
        assert listening, log
        assert "Sluice" in httpx.get(page[1]).text
        assert httpx.get(f"{page[1]}/healthz").json() == {"healthy": True, "reasons": []}
        telemetry = f"http://127.0.0.1:{listening[0]['port']}"
        assert httpx.get(f"{telemetry}/healthz").status_code == 200
        assert 'sluice_loop_up{loop="projector"} 1.0' in httpx.get(f"{telemetry}/metrics").text
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_without_a_place_it_says_what_is_missing() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "--config FILE" in done.stderr
