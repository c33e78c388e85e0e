"""A replay on real servers: killed in the middle it repeats nothing, and the live stream does not notice it."""

import re
import subprocess
import time
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from kafka.admin import KafkaAdminClient

from schemas import Verdict
from tests.conftest import NewTopic, Servers
from tests.integration.streams import SLUICE, Stream

EVENTS = 40
POLICY = """\
schema: sluice.policy/1
version: "strict"
rules:
  - name: everything
    route: {action: reject}
"""


def committed(stream: Stream) -> str:
    """The live group's offsets."""
    with closing(KafkaAdminClient(bootstrap_servers=stream.bootstrap)) as admin:
        offsets = admin.list_group_offsets([stream.group])
    return str(offsets)


@pytest.mark.timeout(300)
def test_a_replay_that_is_killed_goes_on_and_touches_nothing_of_the_live_stream(
    servers: Servers, new_topic: NewTopic, unique_name: str, tmp_path: Path
) -> None:
    stream = Stream(servers, new_topic, unique_name, tmp_path)
    stream.topics["replays"] = new_topic(4)
    settings = yaml.safe_load(stream.config.read_text())
    settings["kafka"]["topics"]["replays"] = stream.topics["replays"]
    settings["kafka"]["transaction_timeout_seconds"] = 4  # so long what a killed run left open holds up readers
    # So that there is a middle to be killed in.
    settings["intake"] = {"batch_size": 1, "max_records_in_flight": 4, "commit_interval_seconds": 0.1}
    stream.config.write_text(yaml.safe_dump(settings))
    policy = tmp_path / "strict.yaml"
    policy.write_text(POLICY)
    begin = datetime.now(UTC) - timedelta(minutes=1)
    with stream.worker(), stream.reader("verdicts") as verdicts:
        stream.publish(EVENTS)
        verdicts.read_until(EVENTS, 120)
    end = datetime.now(UTC) + timedelta(milliseconds=50)
    time.sleep(0.2)
    stream.publish(3)  # after the window
    live = committed(stream)
    command = [
        str(SLUICE), "replay", "--from", begin.isoformat(), "--to", end.isoformat(), "--policy", str(policy),
        "--config", str(stream.config),
    ]  # fmt: skip

    with stream.reader("replays") as replays:
        with (tmp_path / "replay.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        replays.read_until(10, 100)
        process.kill()
        process.wait()
        report = tmp_path / "report" / "replay.html"
        done = subprocess.run(
            [*command, "--report", str(report)], capture_output=True, text=True, timeout=200, check=False
        )
        assert done.returncode == 0, done.stderr
        replays.read_rest()
        found = [Verdict.model_validate(value) for value in replays.values]
    with stream.reader("review") as review, stream.reader("dead") as dead, stream.reader("verdicts") as after:
        for reader in (review, dead, after):
            reader.read_rest()

    assert Counter(verdict.event_id for verdict in found) == dict.fromkeys((f"event-{i}" for i in range(EVENTS)), 1)
    assert {verdict.route.action for verdict in found} == {"reject"}
    assert f"{EVENTS} events judged again; {EVENTS} of {EVENTS} have another route" in done.stdout
    assert committed(stream) == live
    assert len(after.values) == EVENTS
    assert dead.values == []
    assert not {item["verdict_id"] for item in review.values} & {verdict.verdict_id for verdict in found}
    page = report.read_text()
    assert page.count("data:image/jpeg;base64,") > 10
    assert re.search(r"http-equiv=\"Content-Security-Policy\"", page)

    again = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert again.returncode == 0
    assert f"{EVENTS} events judged again" in again.stdout
    assert len(replays.values) == EVENTS
