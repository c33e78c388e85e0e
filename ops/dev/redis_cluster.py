"""A Redis Cluster of three servers without replicas. For tests."""

import time
from collections.abc import Sequence
from pathlib import Path

import redis

from ops.dev.process import ServerError
from ops.dev.servers import RedisServer

NODES = 3
SLOTS = 16384
PATIENCE_SECONDS = 30.0


class ClusterNodeServer(RedisServer):
    """One of the servers. Its cluster bus is on its port + 10,000, which `free_ports` keeps free as well."""

    name = "redis-cluster-node"

    def command(self) -> Sequence[str]:
        return [*super().command(), "--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]

    def client(self) -> redis.Redis:
        client: redis.Redis = redis.Redis(port=self.port, socket_timeout=2.0)
        return client


class RedisClusterServers:
    """The servers, which divide the slots among themselves."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [ClusterNodeServer(directory / f"node-{number}") for number in range(NODES)]

    @property
    def addresses(self) -> list[str]:
        return [f"127.0.0.1:{node.port}" for node in self.nodes]

    def start(self) -> None:
        """Returns when the cluster takes commands. Raises ServerError."""
        for node in self.nodes:
            node.start()
        first = self.nodes[0]
        for number, node in enumerate(self.nodes):
            with node.client() as client:
                begin, end = number * SLOTS // NODES, (number + 1) * SLOTS // NODES - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", begin, end)
                if node is not first:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", first.port)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not all(map(_is_whole, self.nodes)):
            if time.monotonic() >= deadline:
                raise ServerError(f"the Redis Cluster {self.addresses} does not come together")
            time.sleep(0.05)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


def _is_whole(node: ClusterNodeServer) -> bool:
    with node.client() as client:
        told = client.execute_command("CLUSTER", "INFO")
    text = told if isinstance(told, dict) else dict(line.split(":", 1) for line in told.decode().split() if ":" in line)
    return text["cluster_state"] == "ok" and int(text["cluster_known_nodes"]) == NODES
