"""The drills: each makes one kind of fault, a number of times, while events flow."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

from ops.drills import clock_faults, load, retry_topic_drills, storage_faults, tenants
from ops.drills.bench import Bench
from ops.drills.drill import (
    REBALANCE_SECONDS,
    SESSION_SECONDS,
    SETTINGS,
    TRANSACTION_SECONDS,
    AnyDrill,
    Drill,
    EmbeddedDrill,
)
from ops.drills.embedded_bench import EmbeddedBench
from ops.drills.worker_process import WorkerProcess

__all__ = ["DRILLS", "SETTINGS", "Drill"]


def freeze(bench: Bench, repeats: int) -> None:
    first, _ = bench.ensure_workers(2)
    for _ in range(repeats):
        first.freeze()
        time.sleep(SESSION_SECONDS * 1.7)
        first.thaw()
        bench.recover()
        bench.wait_for_members(2)


def outlast_transaction(bench: Bench, repeats: int) -> None:
    first, _ = bench.ensure_workers(2)
    for _ in range(repeats):
        first.freeze_producer()
        time.sleep(TRANSACTION_SECONDS + 1.5)
        first.thaw_producer()
        bench.recover()
        bench.wait_for_members(2)


def slow_commit_during_join(bench: Bench, repeats: int) -> None:
    for _ in range(repeats):
        (first,) = bench.ensure_workers(1)
        first.freeze_producer()
        second = bench.start_worker()
        bench.wait_for_rebalance()
        time.sleep(REBALANCE_SECONDS + 1.0)
        first.thaw_producer()
        bench.recover()
        second.stop()


def add_partitions(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    for _ in range(repeats):
        bench.add_partition()
        bench.wait_for_an_event_in(bench.partitions - 1)
        bench.recover()


def kill_worker(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(0)
    worker = bench.start_working_worker(instance_id="the-only-one")
    for _ in range(repeats):
        time.sleep(random.uniform(0.2, 1.2))
        worker.kill()
        worker = bench.start_worker(instance_id="the-only-one")
        bench.recoveries.append(bench.wait_for_a_verdict(worker.started) - worker.started)


def kill_broker(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    for _ in range(repeats):
        bench.kafka.kill()
        time.sleep(1.0)
        bench.kafka.start()
        bench.recover()


def rebalance_storm(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    for turn in range(repeats):
        extra = bench.start_worker()
        bench.wait_for_rebalance()
        time.sleep(random.uniform(0.0, 2.0))
        if turn % 2:
            extra.kill()
        else:
            extra.stop()
    bench.recover()


def kill_redis(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    for _ in range(repeats):
        bench.redis.kill()
        time.sleep(2.0)
        bench.redis.start()
        bench.recover()


def pause_redis(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    pid = bench.redis.pid
    assert pid is not None
    for _ in range(repeats):
        os.kill(pid, signal.SIGSTOP)
        time.sleep(3.0)
        os.kill(pid, signal.SIGCONT)
        bench.recover()


def stop_under_load(bench: Bench, repeats: int) -> None:
    for _ in range(repeats):
        first, _ = bench.ensure_workers(2)
        first.stop()
        bench.recover()


def poison(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(2)
    broken = bench.images / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but not for long")

    def value(i: int) -> bytes:
        publisher = bench.publisher
        kinds = (
            lambda: b"{not JSON",
            lambda: b'{"schema": "sluice.image-event/9"}',
            lambda: b"",
            lambda: os.urandom(200),
            lambda: publisher.event_of(i, broken),
            lambda: publisher.event_of(i, bench.images / "absent.png"),
            lambda: publisher.event_of(i, Path("/etc/passwd")),
        )
        return kinds[i // 2 % len(kinds)]() if i % 2 else publisher.event(i)

    bench.publisher.value_of = value
    time.sleep(1.5 * repeats)
    bench.publisher.value_of = bench.publisher.event
    bench.recover()


def _waits(worker: WorkerProcess) -> float | None:
    return time.monotonic() if any("waits to take over" in each for each in worker.problems()) else None


def kill_embedded_worker(bench: EmbeddedBench, repeats: int) -> None:
    (reader,) = bench.ensure_workers(1)
    for _ in range(repeats):
        standby = bench.start_worker()
        bench.wait(partial(_waits, standby), "the second worker does not say that it waits")
        reader.kill()
        bench.recover()
        reader = standby


def many_partitions(bench: Bench, repeats: int) -> None:
    bench.ensure_workers(1)
    for _ in range(repeats):
        bench.ensure_workers(2)
        bench.wait_for_members(2)
        bench.recover()
        bench.ensure_workers(1)
        bench.recover()


DRILLS: tuple[AnyDrill, ...] = (
    Drill(
        "freeze",
        "One of two workers is frozen (SIGSTOP) past its session, then goes on.",
        freeze,
        10,
        partitions=12,
        rate=100.0,
    ),
    Drill(
        "transaction-timeout",
        "The producer of one of two workers is frozen past the transaction timeout, then goes on.",
        outlast_transaction,
        5,
    ),
    Drill(
        "slow-commit",
        "A worker's commit hangs for longer than rebalance_seconds while another worker joins.",
        slow_commit_during_join,
        10,
    ),
    Drill("add-partitions", "A partition is added, and events are published to it at once.", add_partitions, 20),
    Drill("kill-worker", "The only worker is killed (SIGKILL) and started again.", kill_worker, 10),
    Drill("kill-broker", "The broker is killed (SIGKILL) and started again after 1 s.", kill_broker, 5),
    Drill("storm", "Workers join and leave, by SIGTERM and by SIGKILL, beside two others.", rebalance_storm, 10),
    Drill("kill-redis", "Redis is killed (SIGKILL) and started again, empty, after 2 s.", kill_redis, 5),
    Drill("pause-redis", "Redis is frozen for 3 s.", pause_redis, 5),
    Drill("stop-worker", "One of two workers is stopped (SIGTERM) under load.", stop_under_load, 5, rate=150.0),
    Drill("poison", "Half of the records are no events, or have images that cannot be judged.", poison, 10),
    Drill(
        "many-partitions",
        "A worker joins and leaves where the topic has 100 partitions.",
        many_partitions,
        3,
        partitions=100,
        rate=150.0,
    ),
    EmbeddedDrill(
        "embedded-standby",
        "The worker on the embedded log is killed (SIGKILL), and another one that waits takes over.",
        kill_embedded_worker,
        5,
    ),
    *storage_faults.DRILLS,
    *retry_topic_drills.DRILLS,
    *clock_faults.DRILLS,
    *load.DRILLS,
    *tenants.DRILLS,
)
