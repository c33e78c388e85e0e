"""A real Kubernetes API server with its etcd, and KubeRay's operator, on loopback.

There are no other controllers and no nodes: a Deployment makes no pods, and no pod runs. API server and operator are
built from their Go modules once, in about nine minutes of CPU, and kept in the user's cache; etcd is Debian's.
"""

import json
import shutil
import ssl
import subprocess
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ops.dev.deployment_tools import KUBERAY, find_go, run, tools_folder
from ops.dev.ports import free_ports
from ops.dev.process import Server, ServerError

VERSION: Final = "1.35.4"
KUBERNETES: Final = f"k8s.io/kubernetes@v{VERSION}"
TOKEN: Final = "of-a-server-on-loopback"


def api_server_program() -> Path:
    """The program, built if it is not in the cache. Raises ToolError."""
    cache = tools_folder()
    program = cache / f"kube-apiserver-{VERSION}"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        go = find_go(Path(scratch))
        # Its own go.mod takes staging modules from folders that its zip lacks, so a generated module uses their
        # releases.
        described = json.loads(run([go, "mod", "download", "-json", KUBERNETES]))
        replaced = json.loads(run([go, "mod", "edit", "-json", described["GoMod"]]))["Replace"] or []
        staged = sorted({each["Old"]["Path"] for each in replaced if each["New"]["Path"].startswith("./staging/")})
        release = f"v0.{VERSION.partition('.')[2]}"
        lines = ["module sluice/kube-apiserver", "go 1.26", f"require k8s.io/kubernetes v{VERSION}"]
        lines += [f"replace {path} => {path} {release}" for path in staged]
        (Path(scratch) / "go.mod").write_text("\n".join(lines) + "\n")
        major, minor, _ = VERSION.split(".")
        names = {"gitVersion": f"v{VERSION}", "gitMajor": major, "gitMinor": minor}
        stamps = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in names.items())
        built = Path(scratch) / "kube-apiserver"
        command = [go, "-C", scratch, "build", "-mod=mod", "-ldflags", f"-s -w {stamps}", "-o", str(built)]
        run([*command, "k8s.io/kubernetes/cmd/kube-apiserver"])
        built.rename(program)
    return program


def kuberay_program() -> Path:
    """KubeRay's operator, built if it is not in the cache. Raises ToolError."""
    cache = tools_folder()
    program = cache / f"kuberay-{KUBERAY.rpartition('@')[2]}"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        run([find_go(Path(scratch)), "install", KUBERAY], {"GOBIN": scratch})
        (Path(scratch) / "ray-operator").rename(program)
    return program


class EtcdServer(Server):
    """etcd that a Kubernetes API server keeps its objects in. Takes two ports."""

    name = "etcd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, free_ports(2))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    def command(self) -> Sequence[str]:
        if (program := shutil.which("etcd")) is None:
            raise ServerError("etcd is not on the PATH: install it (Debian: apt-get install etcd-server)")
        peers = f"http://127.0.0.1:{self.ports[1]}"
        options = {
            "data-dir": ".",
            "listen-client-urls": self.endpoint,
            "advertise-client-urls": self.endpoint,
            "listen-peer-urls": peers,
            "initial-advertise-peer-urls": peers,
            "initial-cluster": f"default={peers}",
        }
        return [program, *(f"--{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"{self.endpoint}/health", timeout=2) as answer:
            return bool(json.load(answer)["health"] == "true")


class KubernetesApiServer(Server):
    """The API server. Takes one port; `kubeconfig` lets an administrator in."""

    name = "kube-apiserver"
    start_timeout_seconds = 180.0

    def __init__(self, directory: Path, etcd: EtcdServer) -> None:
        super().__init__(directory, free_ports(1))
        self._etcd = etcd
        self.kubeconfig = self.directory / "kubeconfig"
        self._key = self.directory / "service-accounts.key"
        self._tokens = self.directory / "tokens.csv"

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.ports[0]}"

    def prepare(self) -> None:
        if not self._key.exists():
            subprocess.run(["openssl", "genrsa", "-out", self._key, "2048"], check=True, capture_output=True)
        self._tokens.write_text(f"{TOKEN},admin,1,system:masters\n")
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [
                        {"name": "it", "cluster": {"server": self.endpoint, "insecure-skip-tls-verify": True}}
                    ],
                    "users": [{"name": "admin", "user": {"token": TOKEN}}],
                    "contexts": [{"name": "it", "context": {"cluster": "it", "user": "admin"}}],
                    "current-context": "it",
                }
            )
        )
        self.kubeconfig.chmod(0o600)

    def command(self) -> Sequence[str]:
        options = {
            "etcd-servers": self._etcd.endpoint,
            "secure-port": self.ports[0],
            "bind-address": "127.0.0.1",
            "advertise-address": "127.0.0.1",
            "cert-dir": "certificates",
            "service-account-issuer": "https://kubernetes.default.svc",
            "service-account-key-file": self._key,
            "service-account-signing-key-file": self._key,
            "token-auth-file": self._tokens,
            "authorization-mode": "RBAC",
            "service-cluster-ip-range": "10.0.0.0/24",
            # Both need a controller: for the `default` account of each namespace, and to let a deleted volume claim go.
            "disable-admission-plugins": "ServiceAccount,StorageObjectInUseProtection",
        }
        return [str(api_server_program()), *(f"--{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        context = ssl._create_unverified_context()
        request = urllib.request.Request(f"{self.endpoint}/readyz", headers={"Authorization": f"Bearer {TOKEN}"})
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return bool(answer.read() == b"ok")


class KubeRayOperator(Server):
    """KubeRay's operator, which makes pods and services of a RayService. Takes two ports."""

    name = "kuberay"

    def __init__(self, directory: Path, kubernetes: KubernetesApiServer) -> None:
        super().__init__(directory, free_ports(2))
        self._kubernetes = kubernetes

    def environment(self) -> Mapping[str, str]:
        return {**super().environment(), "KUBECONFIG": str(self._kubernetes.kubeconfig)}

    def command(self) -> Sequence[str]:
        metrics, health = self.ports
        options = {
            "metrics-addr": f"127.0.0.1:{metrics}",
            "health-probe-bind-address": f"127.0.0.1:{health}",
            "enable-leader-election": "false",
        }
        return [str(kuberay_program()), *(f"--{name}={value}" for name, value in options.items())]

    def answers(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[1]}/readyz", timeout=2) as answer:
            return bool(answer.status == 200)
