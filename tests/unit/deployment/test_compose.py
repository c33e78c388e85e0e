"""The Compose file as `docker compose` would read it, and the files that it mounts. No container is started here."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.dev.deployment_tools import DeploymentTools
from worker.intake.topics import topic_configs
from worker.review.http.serving import check_web_settings
from worker.settings import load_settings

ROOT = Path(__file__).parents[3]
COMPOSE = ROOT / "deploy/compose"


def services() -> Any:
    return yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]


def composed(tools: DeploymentTools, file: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([tools.composecheck, file], capture_output=True, text=True, check=False)


def test_the_compose_file_is_valid(tools: DeploymentTools) -> None:
    done = composed(tools, COMPOSE / "compose.yaml")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [("read_only:", "read_onyl:", "read_onyl"), ("redis: {condition", "rediss: {condition", "rediss")],
)
def test_a_mistyped_key_and_a_service_that_is_not_there_are_found(
    tools: DeploymentTools, tmp_path: Path, right: str, wrong: str, told: str
) -> None:
    (tmp_path / "compose.yaml").write_text((COMPOSE / "compose.yaml").read_text().replace(right, wrong))
    done = composed(tools, tmp_path / "compose.yaml")
    assert done.returncode == 1
    assert told in done.stderr


def test_the_settings_are_valid_and_name_services_of_the_compose_file() -> None:
    settings = load_settings(COMPOSE / "sluice.yaml", {})
    hosts = {settings.kafka.bootstrap_servers, settings.redis.url.get_secret_value(), str(settings.s3.endpoint_url)}
    assert {host.split("//")[-1].split(":")[0] for host in hosts} <= set(services())
    assert topic_configs(settings.kafka, replication_factor=1)
    check_web_settings(settings.web, str(settings.web.public_url))


def test_every_mounted_file_is_there_and_every_port_is_on_loopback() -> None:
    for service in services().values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            assert not source.startswith(".") or (COMPOSE / source).exists(), source
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_a_stopped_worker_has_time_to_drain() -> None:
    drain = load_settings(COMPOSE / "sluice.yaml", {}).intake.drain_seconds
    assert int(services()["worker"]["stop_grace_period"].removesuffix("s")) >= drain + 30


def test_prometheus_takes_its_config_with_our_rules(tmp_path: Path) -> None:
    shutil.copy(COMPOSE / "prometheus.yaml", tmp_path)
    shutil.copy(ROOT / "ops/prometheus/rules.yaml", tmp_path)
    done = subprocess.run(["promtool", "check", "config", tmp_path / "prometheus.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    targets = [
        target
        for job in yaml.safe_load((COMPOSE / "prometheus.yaml").read_text())["scrape_configs"]
        for static in job["static_configs"]
        for target in static["targets"]
    ]
    assert {target.split(":")[0] for target in targets} <= set(services())
