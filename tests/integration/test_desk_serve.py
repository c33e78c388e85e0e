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

from worker.review.http.bearer_keys import digest_of

PATIENCE = 60.0
COMMAND = [str(Path(sys.executable).with_name("sluice")), "desk", "serve"]


KEY = "a-key-of-a-program-that-reads-the-desk-0123"

GENERATOR = [str(Path(sys.executable).with_name("uv")), "tool", "run", "--from", "openapi-python-client==0.28.4"]
GENERATOR += ["openapi-python-client"]
ASK = """
import sys
from desk_client import AuthenticatedClient
from desk_client.api.items import search
from desk_client.api.queues import queues
from desk_client.api.verdicts import verdicts

with AuthenticatedClient(base_url=sys.argv[1], token=sys.argv[2], raise_on_unexpected_status=False) as client:
    found = verdicts.sync(client=client)
    refused = search.sync_detailed(client=client)
    print(f"{found.found} verdicts, queues: {queues.sync(client=client)}; items: {refused.status_code.value}")
"""


@pytest.fixture
def started(tmp_path: Path) -> Callable[[], subprocess.Popen[str]]:
    def start() -> subprocess.Popen[str]:
        keys = {"reports": {"digest": digest_of(KEY), "scopes": ["statistics:read", "verdicts:read"]}}
        environment = os.environ | {
            "SLUICE_WEB__PORT": "0",
            "SLUICE_WEB__API_KEYS": json.dumps(keys),
            "SLUICE_TELEMETRY__METRICS_PORT": "0",
        }
        log = (tmp_path / "log").open("w")
        return subprocess.Popen([*COMMAND, "--data", str(tmp_path / "data")], stderr=log, text=True, env=environment)

    return start


def test_it_serves_page_programs_health_and_metrics_until_sigterm(
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
        assert asked_by_a_generated_client(page[1], tmp_path) == "0 verdicts, queues: []; items: 403"
        process.terminate()
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def asked_by_a_generated_client(address: str, folder: Path) -> str:
    """Makes a client from the desk's OpenAPI document, as other teams do, and asks with it."""
    document = folder / "openapi.json"
    document.write_bytes(httpx.get(f"{address}/v1/openapi.json").content)
    options = ["--path", str(document), "--meta", "none", "--output-path", str(folder / "desk_client")]
    # In an environment of its own: its typer is older than ours.
    made = subprocess.run([*GENERATOR, "generate", *options], capture_output=True, text=True, timeout=PATIENCE)
    assert made.returncode == 0, made.stdout + made.stderr
    assert "WARNING" not in made.stdout, made.stdout
    environment = os.environ | {"PYTHONPATH": str(folder)}
    asked = subprocess.run(
        [sys.executable, "-c", ASK, address, KEY], capture_output=True, text=True, timeout=PATIENCE, env=environment
    )
    assert asked.returncode == 0, asked.stderr
    return asked.stdout.strip()


def test_without_a_place_it_says_what_is_missing() -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "--config FILE" in done.stderr
