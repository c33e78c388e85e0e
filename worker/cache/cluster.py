"""A Redis Cluster, as far as the score cache and the crash markers use one.

Each of their keys stands for itself, so none needs to lie in one slot with another. The review desk's index changes
many keys in one script and cannot lie on a cluster.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from redis.cluster import RedisCluster
from redis.exceptions import RedisClusterException


class ClusterClient:
    """Connects when it is first used, as `redis.Redis` does; `RedisCluster` asks the nodes in its constructor.

    Raises redis.RedisError, also where `RedisCluster` has errors of other kinds. Safe for several threads.
    """

    def __init__(self, connect: Callable[[], RedisCluster]) -> None:
        self._connect = connect
        self._cluster: RedisCluster | None = None
        self._lock = threading.Lock()

    def get(self, key: str) -> Any:
        with _redis_errors():
            return self._connected().get(key)

    def set(self, key: str, value: str | bytes, ex: int | None = None) -> Any:
        with _redis_errors():
            return self._connected().set(key, value, ex=ex)

    def delete(self, key: str) -> Any:
        with _redis_errors():
            return self._connected().delete(key)

    def mget(self, keys: Sequence[str]) -> list[Any]:
        """The values, in order; one question to each node."""
        with _redis_errors():
            return list(self._connected().mget_nonatomic(keys))

    def pipeline(self, transaction: bool = False) -> Any:
        """Sends commands for several keys, one batch to each node. Raises ValueError for a transaction, which a cluster
        has within one slot only."""
        if transaction:
            raise ValueError("a Redis Cluster has no transaction over several keys")
        with _redis_errors():
            return self._connected().pipeline()  # type: ignore[no-untyped-call]

    def ping(self) -> Any:
        with _redis_errors():
            return self._connected().ping()

    def time(self) -> Any:
        """The clock of one node: seconds and microseconds."""
        with _redis_errors():
            cluster = self._connected()
            node = cluster.get_default_node()  # type: ignore[no-untyped-call]
            return cluster.get_redis_connection(node).time()

    def close(self) -> None:
        with self._lock:
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

    def _connected(self) -> RedisCluster:
        with self._lock:
            if self._cluster is None:
                self._cluster = self._connect()
            return self._cluster


@contextmanager
def _redis_errors() -> Iterator[None]:
    try:
        yield
    except RedisClusterException as error:  # no RedisError, though it means that no node answers
        raise redis.ConnectionError(f"the Redis Cluster does not answer: {error}") from error
