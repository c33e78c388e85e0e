"""The disk under the embedded log is full; the object store breaks."""

import time
from collections.abc import Callable
from functools import partial

from ops.drills.bench import Bench
from ops.drills.drill import AnyDrill, Drill, EmbeddedDrill
from ops.drills.embedded_bench import EmbeddedBench
from ops.drills.fault_proxy import Fault
from ops.drills.object_store import DrillObjectStore
from ops.drills.stream_bench import DrillError

FULL_SECONDS = 2.0
OUTAGE_SECONDS = 2.0
WAITING_EVENTS = 5


def fill_disk(bench: EmbeddedBench, repeats: int) -> None:
    """The worker must have work to commit when the disk is full; it must say so, and go on by itself."""
    disk = bench.disk
    assert disk is not None
    (worker,) = bench.ensure_workers(1)
    for _ in range(repeats):
        worker.freeze()
        bench.wait_for_events(WAITING_EVENTS)
        disk.fill()
        worker.thaw()

        def told() -> float | None:
            disk.fill()  # SQLite gives back space of its log as it ends
            full = any("disk full" in problem for problem in worker.problems())
            return time.monotonic() if full else None

        bench.wait(told, "the worker does not say that the disk is full")
        time.sleep(FULL_SECONDS)
        disk.make_room()
        bench.recover()
        if not worker.running:
            raise DrillError(f"the worker ended with status {worker.status} on a full disk")
        bench.wait(lambda: None if worker.problems() else time.monotonic(), "the worker stays unhealthy")


def break_store(*faults: Fault, seconds: float = OUTAGE_SECONDS) -> Callable[[Bench, int], None]:
    """The drill that makes the store break in these ways, each for so many seconds and until a request met it."""

    def run(bench: Bench, repeats: int) -> None:
        store = bench.store
        assert store is not None
        store.fill(bench.images)
        bench.ensure_workers(2)
        given_up = len(bench.counter.failed)
        bench.publisher.value_of = store.event
        try:
            for _ in range(repeats):
                for fault in faults:
                    met = store.proxy.broken
                    store.proxy.fault = fault
                    time.sleep(seconds)
                    bench.wait(partial(_met_after, store, met), f"no request met the fault {fault}")
                store.proxy.fault = None
                bench.recover()
        finally:
            store.proxy.fault = None
            bench.publisher.value_of = bench.publisher.event
        if reasons := list(bench.counter.failed.values())[given_up:]:
            raise DrillError(f"{len(reasons)} images were given up in a short outage, the first: {reasons[0]}")

    return run


def _met_after(store: DrillObjectStore, before: int) -> float | None:
    """When more requests than `before` met a fault. While the store's breaker is open, few are made."""
    return time.monotonic() if store.proxy.broken > before else None


_STORE_FAULTS = {
    Fault.ERROR: "answers 500 to everything",
    Fault.UNAVAILABLE: "answers 503 to everything",
    Fault.FORBIDDEN: "answers 403 to everything",
    Fault.SLOW: "sends bodies at 5 bytes a second",
    Fault.TRUNCATED: "ends connections in the middle of the body",
    Fault.RESET: "resets connections",
}

DRILLS: tuple[AnyDrill, ...] = (
    EmbeddedDrill(
        "disk-full",
        "The disk under the embedded log is full, then has room again; the worker goes on by itself.",
        fill_disk,
        5,
        needs_small_disk=True,
    ),
    *(
        Drill(
            f"s3-{fault.value}",
            f"S3 {what} for {OUTAGE_SECONDS:.0f} s; no image is given up.",
            break_store(fault),
            5,
            needs_store=True,
        )
        for fault, what in _STORE_FAULTS.items()
    ),
)
