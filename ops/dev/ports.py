"""Free loopback ports for servers that may be killed and started again on the same ones."""

import random
import socket

# Below the ephemeral range of Linux (32768 and up): a client that reconnects to a dead server on an ephemeral port can
# be given that very port as its own, connect to itself, and keep the server from ever coming back.
_LOWEST = 10_240
_HIGHEST = 19_990


def is_free(port: int) -> bool:
    """Whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> tuple[int, ...]:
    """`count` consecutive ports p that are free, and p + 10,000 as well (SeaweedFS puts its gRPC there)."""
    for _ in range(200):
        first = random.randrange(_LOWEST, _HIGHEST - count)
        ports = tuple(range(first, first + count))
        if all(is_free(port) and is_free(port + 10_000) for port in ports):
            return ports
    raise OSError(f"found no {count} free loopback ports between {_LOWEST} and {_HIGHEST}")
