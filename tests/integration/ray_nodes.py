"""A Ray cluster of several nodes on one machine, and applications deployed to it as `serve deploy` does."""

import contextlib
import itertools
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import ray
from ray import serve
from ray._private.node import Node
from ray._private.state import actors
from ray.cluster_utils import Cluster
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

WAIT_SECONDS = 120.0
STORE_BYTES = 100 * 2**20
ATTEMPTS = 4


class RayNodes:
    """The cluster's nodes by the name of the custom resource that only they have. Each has a loopback address of its
    own; not 127.0.0.1, in whose place Ray takes one that others can reach."""

    def __init__(self, http_options: Mapping[str, Any] | None = None) -> None:
        """`http_options` as in a Serve config; absent: nothing answers HTTP."""
        self._cluster = Cluster()
        self._http: dict[str, Any] = {"proxy_location": "Disabled"}
        if http_options is not None:
            self._http = {"proxy_location": "HeadOnly", "http_options": dict(http_options)}
        self._addresses = (f"127.0.0.{number}" for number in itertools.count(2))
        # A dead node is noticed after 5 s rather than 15; fewer would take a busy machine's pauses for deaths.
        patience = {"health_check_period_ms": 1000, "health_check_failure_threshold": 5}
        head = self._add(num_cpus=0, _system_config=patience)
        self._logs = Path(head.get_logs_dir_path())
        self._nodes: dict[str, Node] = {}
        ray.init(
            address=self._cluster.address,
            _node_ip_address=head.node_ip_address,
            log_to_driver=False,
            logging_level="WARNING",
        )
        serve.start(**self._http)

    def add(self, name: str, *resources: str) -> None:
        self._nodes[name] = self._add(num_cpus=4, resources=dict.fromkeys((name, *resources), 1.0))

    def kill(self, name: str) -> None:
        """Ends the node's processes as a power cut would."""
        self._cluster.remove_node(self._nodes.pop(name), allow_graceful=False)

    def id_of(self, name: str) -> str:
        return str(self._nodes[name].node_id)

    def deploy(self, *applications: Mapping[str, Any], seconds: float = WAIT_SECONDS) -> None:
        """Deploys, and waits until all run."""
        self.announce(*applications)
        wait_for(lambda: self._run([str(each["name"]) for each in applications]), self.tell, seconds)

    def announce(self, *applications: Mapping[str, Any]) -> None:
        """Deploys, and does not wait."""
        config = ServeDeploySchema.model_validate({**self._http, "applications": applications})
        _get_global_client().deploy_apps(config)

    def replicas(self, application: str) -> dict[str, str]:
        """The living replicas of an application: their names, and the nodes where they run."""
        return {
            actor["Name"]: actor["Address"]["NodeID"]
            for actor in actors().values()
            if actor["Name"].startswith(f"SERVE_REPLICA::{application}#") and actor["State"] == "ALIVE"
        }

    def logged(self, text: str) -> list[str]:
        """The lines with that text on standard error of the nodes' processes."""
        lines = (line for file in self._logs.glob("worker-*.err") for line in file.read_text("utf-8").splitlines())
        return [line for line in lines if text in line]

    def tell(self) -> str:
        """What Serve says of the applications, for messages."""
        return "\n".join(
            f"{name}: {app.status} {app.message}\n  "
            + "\n  ".join(f"{each}: {d.status} {d.message}" for each, d in app.deployments.items())
            for name, app in serve.status().applications.items()
        )

    def close(self) -> None:
        serve.shutdown()
        ray.shutdown()
        self._cluster.shutdown()

    def _add(self, **options: Any) -> Node:
        """A node ends itself when its agents are not ready within 15 s, and they may not be on a busy machine: then
        another is tried. Agents without HTTP doors, which nobody needs here, are ready sooner."""
        for attempt in itertools.count(1):
            try:
                with patch("ray._private.utils.get_dashboard_dependency_error", return_value=ImportError("not used")):
                    return self._cluster.add_node(
                        node_ip_address=next(self._addresses),
                        object_store_memory=STORE_BYTES,
                        include_dashboard=False,
                        **options,
                    )
            except Exception:
                if attempt == ATTEMPTS:
                    raise
        raise AssertionError("unreachable")

    @staticmethod
    def _run(names: Sequence[str]) -> bool:
        applications = serve.status().applications
        return all(name in applications and applications[name].status == "RUNNING" for name in names)


def application(name: str, resource: str, arguments: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    """One application of a Serve config, whose replicas go to nodes with that resource."""
    actor = {"num_cpus": 0.1, "resources": {resource: 0.1}}
    return {
        "name": name,
        "import_path": f"worker.apps.{name}:build",
        "route_prefix": None,
        "args": dict(arguments),
        "deployments": [{"name": name, "ray_actor_options": actor, **options}],
    }


def wait_for(condition: Callable[[], bool], tell: Callable[[], str], seconds: float = WAIT_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, tell()
        time.sleep(0.2)


@contextlib.contextmanager
def ending_all_processes() -> Iterator[None]:
    """Ends what Ray leaves behind of the processes that were started meanwhile."""
    mark = secrets.token_hex(16)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TEST_RUN_OF_RAY", mark)
        yield
    deadline = time.monotonic() + 15.0
    while time.monotonic() < deadline and _processes_with(mark):
        time.sleep(0.2)
    for pid in _processes_with(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _processes_with(mark: str) -> list[int]:
    """Processes that have inherited the mark, but for this one."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                if mark.encode() in (folder / "environ").read_bytes():
                    found.append(int(folder.name))
    return found
