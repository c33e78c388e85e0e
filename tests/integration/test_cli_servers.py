"""The flows of the README, as a user runs them, on real Kafka, Redis and S3."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.dev.servers import S3Server
from tests.conftest import Servers
from worker.samples.sample import load_samples
from worker.settings import TopicSettings

SAMPLES = [sample.path for sample in load_samples()[:6]]
SLUICE = [sys.executable, "-c", "from worker.cli.main import app; app()"]


class Shell:
    """Runs `sluice` with a settings file for the servers."""

    def __init__(self, folder: Path, servers: Servers, name: str) -> None:
        self.folder = folder
        topics = {topic: f"{name}.{topic}" for topic in TopicSettings.model_fields}
        settings = {
            "kafka": {"bootstrap_servers": servers.kafka, "group_id": name, "topics": topics},
            "redis": {"url": servers.redis_url},
            "s3": {"endpoint_url": servers.s3_endpoint, "region": servers.s3_region, "addressing_style": "path"},
            "files": {"roots": [str(SAMPLES[0].parent)]},
        }
        self.config = folder / "sluice.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.environment = os.environ | {
            "AWS_ACCESS_KEY_ID": servers.s3_access_key,
            "AWS_SECRET_ACCESS_KEY": servers.s3_secret_key,
        }

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*SLUICE, *map(str, arguments), "--config", str(self.config)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start_worker(self) -> subprocess.Popen[str]:
        """A worker that has its partitions; until then a signal would meet a program that is still being loaded."""
        worker = self.start("up")
        assert worker.stderr is not None
        next(line for line in worker.stderr if "rebalance" in line)
        return worker

    def run(self, *arguments: object) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=90)
        return process.returncode, out, err

    def tail(self, *arguments: object, limit: int) -> list[dict[str, Any]]:
        code, out, err = self.run("tail", "--from-beginning", "--json", "--limit", limit, *arguments)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]


@pytest.fixture
def shell(tmp_path: Path, servers: Servers, unique_name: str) -> Shell:
    return Shell(tmp_path, servers, unique_name)


@pytest.fixture
def uploads(s3_server: S3Server, bucket: str) -> Iterator[str]:
    """A bucket with four samples below in/, a text beside them, and a broken image."""
    client = s3_server.client()
    contents = {f"in/{path.name}": path.read_bytes() for path in SAMPLES[:4]}
    contents |= {"in/notes.txt": b"no image", "in/broken.jpg": SAMPLES[0].read_bytes()[:2000]}
    for key, data in contents.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)
    yield bucket
    for key in contents:
        client.delete_object(Bucket=bucket, Key=key)


def end(worker: subprocess.Popen[str]) -> str:
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=60)
    assert worker.returncode == 0, err
    return err


def test_topics_submit_up_and_tail(shell: Shell, uploads: str) -> None:
    code, out, err = shell.run("topics", "create", "--partitions", 4)
    assert code == 0, err
    assert out.count("created with 4 partitions") == len(TopicSettings.model_fields)

    code, out, err = shell.run("submit", f"s3://{uploads}/in/", SAMPLES[4], "--tenant", "acme")
    assert code == 0, err
    assert out.startswith("6 events in ")

    worker = shell.start_worker()
    try:
        verdicts = shell.tail(limit=6)
        (dead,) = shell.tail("--topic", "dead", limit=1)
        # The same images again: Redis knows them, and the aliases of S3 save the fetch.
        assert shell.run("submit", f"s3://{uploads}/in/", "--generator", "again")[0] == 0
        again = [verdict for verdict in shell.tail(limit=11) if verdict["generator"] == "again"]
    finally:
        logs = end(worker)

    places = {verdict["image"].get("key") or verdict["image"]["path"] for verdict in verdicts}
    assert places == {f"in/{path.name}" for path in SAMPLES[:4]} | {"in/broken.jpg", str(SAMPLES[4])}
    assert sorted(verdict["status"] for verdict in verdicts) == ["failed", *["scored"] * 5]
    assert {verdict["tenant"] for verdict in verdicts} == {"acme"}
    assert dead["failure"]["reason"] == "truncated_image"
    assert sorted(verdict["cached"] for verdict in again) == [False, True, True, True, True]
    assert shell.environment["AWS_SECRET_ACCESS_KEY"] not in logs

    code, out, err = shell.run("tail", "--from-beginning", "--no-follow")
    assert code == 0, err
    assert len(out.splitlines()) == 11


def test_what_is_submitted_while_nobody_works_is_judged_by_the_next_worker_and_only_once(shell: Shell) -> None:
    assert shell.run("topics", "create", "--partitions", 2)[0] == 0
    assert shell.run("submit", *SAMPLES[:3])[0] == 0
    for _ in range(2):
        worker = shell.start_worker()
        try:
            verdicts = shell.tail(limit=3)
        finally:
            end(worker)
    _, out, _ = shell.run("tail", "--from-beginning", "--no-follow")

    assert len(verdicts) == len(out.splitlines()) == 3


def test_a_prefix_is_scored_in_the_order_of_its_keys(shell: Shell, uploads: str) -> None:
    code, out, err = shell.run("score", f"s3://{uploads}/in/", "--output", "-")
    results = [json.loads(line) for line in out.splitlines()]

    assert code == 1
    names = sorted(["broken.jpg", *(path.name for path in SAMPLES[:4])])
    assert [result["image"] for result in results] == [f"s3://{uploads}/in/{name}" for name in names]
    assert [result["quality"] is None for result in results] == [name == "broken.jpg" for name in names]
    assert "1 file that is not an image was left out: " in err


def test_versions_pin_what_was_there_at_submission(shell: Shell, s3_server: S3Server, bucket: str) -> None:
    client = s3_server.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    first = client.put_object(Bucket=bucket, Key="a.jpg", Body=SAMPLES[0].read_bytes())
    second = client.put_object(Bucket=bucket, Key="a.jpg", Body=SAMPLES[1].read_bytes())
    try:
        assert shell.run("topics", "create", "--partitions", 1)[0] == 0
        assert shell.run("submit", f"s3://{bucket}/", "--versions")[0] == 0
        (event,) = shell.tail("--topic", "images", limit=1)
        assert event["image"]["version_id"] == second["VersionId"] != first["VersionId"]
        assert event["image"]["etag"] == second["ETag"].strip('"')
    finally:
        for version in (first, second):
            client.delete_object(Bucket=bucket, Key="a.jpg", VersionId=version["VersionId"])


def test_a_bucket_that_is_not_there_is_one_line(shell: Shell) -> None:
    code, _, err = shell.run("score", "s3://no-such-bucket/x")

    assert code == 1
    assert err.startswith("error: s3://no-such-bucket/x: NoSuchBucket")
    assert "Traceback" not in err


def test_topics_that_do_not_exist_are_pointed_out(shell: Shell) -> None:
    for command in (["up"], ["submit", SAMPLES[0]], ["tail"]):
        code, _, err = shell.run(*command)

        assert code == 1
        assert "sluice topics create" in err
        assert "Traceback" not in err


def test_a_second_signal_ends_the_worker_at_once(shell: Shell) -> None:
    assert shell.run("topics", "create", "--partitions", 1)[0] == 0
    worker = shell.start_worker()
    os.kill(worker.pid, signal.SIGSTOP)
    for _ in range(2):
        worker.send_signal(signal.SIGTERM)
        time.sleep(0.05)
    worker.send_signal(signal.SIGINT)
    os.kill(worker.pid, signal.SIGCONT)
    worker.communicate(timeout=30)

    assert worker.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
