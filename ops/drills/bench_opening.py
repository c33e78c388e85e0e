"""Starts what a drill is made on: servers of its own, a disk, a bench."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ops.dev.process import Server
from ops.dev.servers import KafkaServer, RedisServer, S3Server
from ops.drills.bench import Bench
from ops.drills.drill import SETTINGS, AnyDrill, EmbeddedDrill
from ops.drills.embedded_bench import EmbeddedBench
from ops.drills.fault_proxy import FaultProxy
from ops.drills.object_store import DrillObjectStore
from ops.drills.small_disk import SmallDisk

BUCKET = "drill"


@contextmanager
def opened(drill: AnyDrill, folder: Path) -> Iterator[Any]:
    """The bench that `drill.run` takes, running; all that was started ends with it. `folder` must exist and be empty.

    Raises DrillUnavailable where the machine lacks what the drill needs.
    """
    with ExitStack() as stack:
        if isinstance(drill, EmbeddedDrill):
            disk = stack.enter_context(SmallDisk(folder)) if drill.needs_small_disk else None
            yield stack.enter_context(EmbeddedBench(folder, rate=drill.rate, disk=disk))
            return
        kafka, redis = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        _start(stack, kafka)
        _start(stack, redis)
        store = None
        if drill.needs_store:
            s3 = S3Server(folder / "s3")
            _start(stack, s3)
            store = stack.enter_context(opened_store(s3, BUCKET))
        bench = Bench(kafka, redis, folder, partitions=drill.partitions, rate=drill.rate, store=store, **SETTINGS)
        yield stack.enter_context(bench)


@contextmanager
def opened_store(server: S3Server, bucket: str) -> Iterator[DrillObjectStore]:
    """A bucket behind a proxy that can break."""
    with FaultProxy("127.0.0.1", server.port) as proxy:
        yield DrillObjectStore(server, proxy, bucket)


def _start(stack: ExitStack, server: Server) -> None:
    stack.callback(server.stop)
    server.start()
