"""Renders the Helm chart as `helm install` would, without a cluster."""

import functools
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ops.dev.deployment_tools import deployment_tools

ROOT = Path(__file__).parents[3]
CHART = ROOT / "deploy/helm/sluice"
CUSTOM_RESOURCES = (
    "ray.io/v1/RayService",
    "keda.sh/v1alpha1/ScaledObject",
    "kafka.strimzi.io/v1beta2/KafkaTopic",
    "monitoring.coreos.com/v1/PodMonitor",
    "external-secrets.io/v1/ExternalSecret",
)
SERVERS = {
    "settings.kafka.bootstrap_servers": "kafka:9092",
    "settings.redis.url": "redis://redis:6379/0",
    "settings.web.public_url": "https://desk.sluice.test",
}
KEY = {"ray.gateway.enabled": "true", "settings.gateway.keys.acme": f"sha256:{'a' * 64}"}
MODELS = {"settings.model": "s3://our-models/mst-clip", "settings.engine.repository": "s3://our-models"}
VARIANTS: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "small": ("values-small.yaml", SERVERS),
    "gpu": ("values-gpu.yaml", {**SERVERS, **MODELS, **KEY, "ray.faultTolerance.redis.address": "redis:6379"}),
    "gpu-desk-on-ray": (
        "values-gpu.yaml",
        {**SERVERS, **MODELS, **KEY, "desk.onRay": "true", "ray.autoscaling": "false"},
    ),
    "airgapped": ("values-airgapped.yaml", {}),
    "everything": (
        "values-small.yaml",
        {
            **SERVERS,
            "policy": "rules: []",
            "worker.autoscaling.enabled": "true",
            "monitoring.podMonitor.enabled": "true",
            "monitoring.rules.enabled": "true",
            "monitoring.dashboards.enabled": "true",
            "desk.ingress.enabled": "true",
            "desk.ingress.host": "desk.sluice.test",
            "desk.ingress.tlsSecret": "desk-tls",
            "externalSecrets.sluice-redis.store": "vault",
            "externalSecrets.sluice-redis.data.url.key": "sluice/redis",
            "settings.images.max_bytes": "134217728",
            "settings.intake.drain_seconds": "100",
        },
    ),
}
"""Each values file of the chart with what its heading says to set, and one with all that is off by default."""


def helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [deployment_tools().helm, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def template(file: str, values: Mapping[str, str], known: tuple[str, ...] = CUSTOM_RESOURCES) -> Any:
    sets = [argument for name, value in values.items() for argument in ("--set", f"{name}={value}")]
    apis = [argument for api in known for argument in ("--api-versions", api)]
    return helm("template", "sluice", CHART, "-f", CHART / file, *sets, *apis)


@functools.cache
def text_of(variant: str) -> str:
    rendered = template(*VARIANTS[variant])
    assert rendered.returncode == 0, rendered.stderr
    return str(rendered.stdout)


def resources(variant: str) -> list[Any]:
    return [each for each in yaml.safe_load_all(text_of(variant)) if each]


def one(variant: str, kind: str, name: str = "") -> Any:
    """The resource of a kind whose name ends with `name`."""
    (found,) = [r for r in resources(variant) if r["kind"] == kind and r["metadata"]["name"].endswith(name)]
    return found


def pods(variant: str) -> dict[str, Any]:
    """Every pod's spec by its component."""
    found = []
    for each in resources(variant):
        if each["kind"] == "Deployment":
            found.append(each["spec"]["template"])
        elif each["kind"] == "Pod":
            found.append(each)
        elif each["kind"] == "RayService":
            cluster = each["spec"]["rayClusterConfig"]
            found += [group["template"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"] for pod in found}
