"""`sluice deploy check --online` on real Kafka, Redis and S3."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from ops.dev.servers import S3Server
from tests.conftest import NewTopic, Servers
from worker.apps.checking.check import DeployConfigError, check
from worker.cli.main import app
from worker.intake.topics import topic_configs
from worker.policy.loading import DEFAULT
from worker.settings import KafkaSettings, TopicSettings

CONFIG = Path(__file__).parents[2] / "deploy/serve/local.yaml"
PARTITIONS = 2


@pytest.fixture
def settings(
    servers: Servers, new_topic: NewTopic, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What all applications share, with nothing wrong in it: the policy lies on S3."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", servers.s3_access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", servers.s3_secret_key)
    defaults = topic_configs(KafkaSettings(), replication_factor=1)
    names = TopicSettings().model_dump(exclude_none=True)
    topics = {role: new_topic(PARTITIONS, defaults[name]) for role, name in names.items()}
    s3_server.client().put_object(Bucket=bucket, Key="policy.yaml", Body=DEFAULT.read_bytes())
    return {
        "model": "mst-lite",
        "policy": f"s3://{bucket}/policy.yaml",
        "kafka": {"bootstrap_servers": servers.kafka, "topics": topics},
        "redis": {"url": servers.redis_url},
        "s3": {"endpoint_url": servers.s3_endpoint, "region": servers.s3_region, "addressing_style": "path"},
    }


def written(folder: Path, settings: dict[str, Any], intake_replicas: int = PARTITIONS) -> Path:
    data = yaml.safe_load(CONFIG.read_text())
    for application in data["applications"]:
        del application["args"]["config"]
        application["args"]["settings"] = application["args"].get("settings", {}) | settings
        if application["name"] == "intake":
            application["deployments"][0]["num_replicas"] = intake_replicas
    (folder / "serve.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "serve.yaml"


def test_a_config_whose_places_are_all_there_passes(
    settings: dict[str, Any], tmp_path: Path, s3_server: S3Server, bucket: str
) -> None:
    result = CliRunner().invoke(app, ["deploy", "check", "--online", str(written(tmp_path, settings))])
    assert (result.exit_code, result.stdout.count("note:")) == (0, 0), result.output
    s3_server.client().delete_object(Bucket=bucket, Key="policy.yaml")


def test_each_place_that_is_not_there_is_told_once_with_its_line(
    settings: dict[str, Any], tmp_path: Path, s3_server: S3Server, bucket: str
) -> None:
    s3_server.client().delete_object(Bucket=bucket, Key="policy.yaml")
    settings["model"] = f"s3://{bucket}/mst-clip"
    settings["redis"] = {"url": "redis://127.0.0.1:1/0"}
    with pytest.raises(DeployConfigError) as caught:
        check(written(tmp_path, settings, intake_replicas=12), online=True)
    said = str(caught.value)
    assert all(f"{tmp_path}/serve.yaml:" in line for line in said.splitlines())
    assert said.count(f"s3://{bucket}/mst-clip") == 1
    assert said.count(f"s3://{bucket}/policy.yaml") == 1
    assert "Redis: " in said
    assert f"12 replicas, but {settings['kafka']['topics']['images']} has {PARTITIONS} partitions" in said


def test_a_broker_that_does_not_answer_is_told(
    settings: dict[str, Any], tmp_path: Path, s3_server: S3Server, bucket: str
) -> None:
    settings["kafka"] = {"bootstrap_servers": "127.0.0.1:1"}
    with pytest.raises(DeployConfigError, match=r"Kafka: "):
        check(written(tmp_path, settings), online=True)
    s3_server.client().delete_object(Bucket=bucket, Key="policy.yaml")
