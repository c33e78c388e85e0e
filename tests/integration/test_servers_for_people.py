"""`make servers`: what a person gets, and that it can be asked for again."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import boto3
import pytest
import redis
from kafka.admin import KafkaAdminClient

from worker.settings import load_settings

pytestmark = pytest.mark.integration


def _ops_dev(action: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ops.dev", action, "--folder", str(folder)]
    return subprocess.run(command, capture_output=True, text=True)


def _variables(path: Path) -> Mapping[str, str]:
    """The file as a shell reads it."""
    script = f"set -a; . {path}; set +a; env"
    told = subprocess.run(["sh", "-c", script], capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
    return dict(line.split("=", 1) for line in told.stdout.splitlines())


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "run"
    yield folder
    _ops_dev("stop", folder)


def test_servers_start_once_serve_as_the_settings_say_and_stop(folder: Path) -> None:
    first = _ops_dev("start", folder)
    assert first.returncode == 0, first.stderr
    assert f"--config {folder}/dev.yaml" in first.stdout

    settings = load_settings(folder / "dev.yaml", {})
    assert settings.model == "mst-lite"
    (root,) = settings.files.roots
    assert list(root.rglob("*.jpg"))
    with KafkaAdminClient(bootstrap_servers=settings.kafka.bootstrap_servers) as admin:
        assert admin.list_topics() == []
    with redis.Redis.from_url(settings.redis.url.get_secret_value()) as client:
        assert client.ping()
    variables = _variables(folder / "dev.env")
    s3 = boto3.client(
        "s3",
        endpoint_url=settings.s3.endpoint_url,
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        region_name=variables["AWS_DEFAULT_REGION"],
    )
    s3.put_object(Bucket="images", Key="kept", Body=b"x")
    assert (folder / "dev.env").stat().st_mode & 0o077 == 0

    again = _ops_dev("start", folder)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("runs already") == 3
    assert load_settings(folder / "dev.yaml", {}) == settings

    assert _ops_dev("stop", folder).stdout.count("stopped") == 3
    assert _ops_dev("stop", folder).stdout == "no servers run\n"
    assert _ops_dev("start", folder).stdout.count("starting") == 3
    assert s3.get_object(Bucket="images", Key="kept")["Body"].read() == b"x"


def test_a_spoilt_state_file_is_reported(folder: Path) -> None:
    folder.mkdir()
    (folder / "servers.json").write_text("{")
    refused = _ops_dev("start", folder)
    assert refused.returncode == 1
    assert "servers.json is not JSON" in refused.stderr
    (folder / "servers.json").unlink()
