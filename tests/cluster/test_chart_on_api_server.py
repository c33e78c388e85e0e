"""The chart on a real Kubernetes API server (`make k8s-test`) with KubeRay's operator and no nodes: no pod runs."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.dev.deployment_tools import DeploymentTools, deployment_tools
from ops.dev.kubernetes import EtcdServer, KubeRayOperator, KubernetesApiServer
from tests.unit.deployment.chart import CHART, VARIANTS, pods

pytestmark = pytest.mark.cluster
NAMESPACE = "gate"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
KINDS = "deploy,svc,cm,sa,pdb,netpol,ingress,secret"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def tools() -> DeploymentTools:
    return deployment_tools()


@pytest.fixture(scope="module")
def api_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubernetesApiServer]:
    etcd = EtcdServer(tmp_path_factory.mktemp("etcd"))
    etcd.start()
    try:
        server = KubernetesApiServer(tmp_path_factory.mktemp("kubernetes"), etcd)
        server.start()
        yield server
        server.stop()
    finally:
        etcd.stop()


@pytest.fixture(scope="module")
def kubectl(tools: DeploymentTools, api_server: KubernetesApiServer) -> Command:
    return _command(tools.kubectl, api_server)


@pytest.fixture(scope="module")
def helm(tools: DeploymentTools, api_server: KubernetesApiServer) -> Command:
    return _command(tools.helm, api_server)


def _command(program: Path, server: KubernetesApiServer) -> Command:
    environment = os.environ | {"KUBECONFIG": str(server.kubeconfig), "HELM_NAMESPACE": NAMESPACE}

    def run(*arguments: object, given: str | None = None) -> "subprocess.CompletedProcess[str]":
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, env=environment, input=given, capture_output=True, text=True, timeout=120)

    return run


@pytest.fixture(autouse=True)
def namespace(kubectl: Command) -> Iterator[None]:
    """One with Pod Security's profile `restricted`; without controllers it cannot be deleted, but what is in it can."""
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": RESTRICTED}}
    assert kubectl("apply", "-f", "-", given=json.dumps(manifest)).returncode == 0
    yield
    kubectl("delete", "-n", NAMESPACE, "--all", "--wait=false", f"{KINDS},pvc,pod")


def chart(variant: str, **more: str) -> list[object]:
    file, values = VARIANTS[variant]
    sets = [argument for name, value in {**values, **more}.items() for argument in ("--set", f"{name}={value}")]
    return [CHART, "-f", CHART / file, *sets]


def settings(kubectl: Command) -> Any:
    found = kubectl("get", "-n", NAMESPACE, "cm", "sluice", "-o", "jsonpath={.data.sluice\\.yaml}")
    return yaml.safe_load(found.stdout)


def names(kubectl: Command) -> set[str]:
    listed = kubectl("get", "-n", NAMESPACE, KINDS, "-l", "app.kubernetes.io/instance=sluice", "-o", "name")
    return set(listed.stdout.split())


def test_install_upgrade_rollback_and_uninstall(helm: Command, kubectl: Command) -> None:
    installed = helm("install", "sluice", *chart("small"))
    assert installed.returncode == 0, installed.stderr
    assert "would violate PodSecurity" not in installed.stderr
    assert {"deployment.apps/sluice-worker", "deployment.apps/sluice-desk", "service/sluice-desk"} <= names(kubectl)

    upgraded = helm("upgrade", "sluice", *chart("small", **{"settings.kafka.group_id": "other"}))
    assert upgraded.returncode == 0, upgraded.stderr
    assert settings(kubectl)["kafka"]["group_id"] == "other"

    assert helm("rollback", "sluice").returncode == 0
    assert "group_id" not in settings(kubectl)["kafka"]

    assert helm("uninstall", "sluice").returncode == 0
    assert names(kubectl) == set()
    kept = kubectl("get", "-n", NAMESPACE, "pvc", "-o", "name").stdout.split()
    assert kept == ["persistentvolumeclaim/sluice-desk"]  # the desk's users, as docs/kubernetes.md says


def test_operators_that_are_missing_are_named_before_anything_is_made(helm: Command, kubectl: Command) -> None:
    refused = helm("install", "sluice", *chart("gpu"))
    assert refused.returncode == 1
    assert "mode: ray needs KubeRay's operator" in refused.stderr
    assert "monitoring needs Prometheus' operator" in refused.stderr
    assert names(kubectl) == set()


def test_every_pod_is_admitted_by_the_restricted_profile_and_a_looser_one_is_not(kubectl: Command) -> None:
    for variant in VARIANTS:
        for component, spec in pods(variant).items():
            made = admitted(kubectl, spec)
            assert made.returncode == 0, (variant, component, made.stderr)
    spec = json.loads(json.dumps(pods("small")["worker"]))
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    refused = admitted(kubectl, spec)
    assert refused.returncode == 1
    assert 'violates PodSecurity "restricted' in refused.stderr


def admitted(kubectl: Command, spec: Any) -> "subprocess.CompletedProcess[str]":
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod", "namespace": NAMESPACE}, "spec": spec}
    return kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", given=json.dumps(pod))


def test_with_the_operators_definitions_all_resources_are_accepted(
    helm: Command, kubectl: Command, tools: DeploymentTools
) -> None:
    """Kubernetes checks custom resources by the definitions, with rules that no schema can hold. They stay, so this
    comes after what needs none."""
    applied = kubectl("apply", "--server-side", "-f", tools.definitions)
    assert applied.returncode == 0, applied.stderr
    waited = kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    assert waited.returncode == 0, waited.stderr
    for variant in ("gpu", "everything"):
        installed = helm("install", "sluice", *chart(variant))
        assert installed.returncode == 0, installed.stderr
        again = helm("upgrade", "sluice", *chart(variant, **{"settings.model": "s3://our-models/other"}))
        assert again.returncode == 0, again.stderr
        assert helm("uninstall", "sluice").returncode == 0
        assert names(kubectl) == set()
        kubectl("delete", "-n", NAMESPACE, "pvc", "--all", "--wait=false")


def test_kuberay_makes_restricted_pods_of_the_rayservice(
    helm: Command, kubectl: Command, api_server: KubernetesApiServer, tmp_path: Path
) -> None:
    """After the test above, which brings the definitions. What the operator adds to pods must be admitted, too."""
    operator = KubeRayOperator(tmp_path, api_server)
    operator.start()
    try:
        installed = helm("install", "sluice", *chart("gpu"))
        assert installed.returncode == 0, installed.stderr
        made = eventually(lambda: ray_pods(kubectl), lambda found: len(found) == 5)
        groups = sorted(pod["metadata"]["labels"]["ray.io/group"] for pod in made)
        assert groups == ["cpu", "cpu", "gpu", "gpu", "headgroup"]
        for pod in made:
            labels, spec = pod["metadata"]["labels"], pod["spec"]
            assert labels["app.kubernetes.io/name"] == "sluice"  # as NetworkPolicy, PodMonitor and budget select
            assert "wget" not in json.dumps(spec["containers"])
            assert spec["containers"][0]["command"][0] == "/bin/bash"
        head = next(pod for pod in made if pod["metadata"]["labels"]["ray.io/node-type"] == "head")
        assert "RAY_REDIS_ADDRESS" in {variable["name"] for variable in head["spec"]["containers"][0]["env"]}
        services = kubectl("get", "-n", NAMESPACE, "svc", "-o", "name").stdout
        assert "head-svc" in services
    finally:
        helm("uninstall", "sluice")
        eventually(lambda: kubectl("get", "-n", NAMESPACE, "rayservice", "-o", "name").stdout, lambda left: not left)
        operator.stop()


def ray_pods(kubectl: Command) -> list[Any]:
    return list(
        json.loads(kubectl("get", "-n", NAMESPACE, "pods", "-l", "ray.io/cluster", "-o", "json").stdout)["items"]
    )


def eventually(ask: Callable[[], Any], enough: Callable[[Any], bool], patience: float = 60.0) -> Any:
    deadline = time.monotonic() + patience
    while not enough(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.5)
    return found
