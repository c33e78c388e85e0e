"""The object store is down for longer than an event may hold its partition."""

import json
import time
from functools import partial

from ops.drills.bench import Bench
from ops.drills.drill import AnyDrill, Drill
from ops.drills.fault_proxy import Fault
from ops.drills.stream_bench import DrillError

HOLD_SECONDS = 1.0
DELAYS_SECONDS = (2.0, 3.0, 4.0)
WORKER = {
    "SLUICE_INTAKE__RETRY_HOLD_SECONDS": str(HOLD_SECONDS),
    "SLUICE_INTAKE__RETRY_DELAYS_SECONDS": json.dumps(DELAYS_SECONDS),
}


def outlast_hold(bench: Bench, repeats: int) -> None:
    """Every second event needs the store. The others must get their verdicts while it is down, and those that wait must
    outlive a kill of the only worker."""
    store, publisher = bench.store, bench.publisher
    assert store is not None
    store.fill(bench.images)
    bench.ensure_workers(0)
    worker = bench.start_worker(WORKER)
    bench.wait_for_a_verdict()
    given_up = len(bench.counter.failed)
    publisher.value_of = lambda i: store.event(i) if i % 2 else publisher.event(i)
    try:
        for _ in range(repeats):
            moved = bench.records_in("retry_1")
            store.proxy.fault = Fault.UNAVAILABLE
            bench.wait(partial(_moved, bench, moved), "no event moved to a retry topic")
            bench.wait_for_a_verdict()
            worker.kill()
            worker = bench.start_worker(WORKER)
            bench.wait_for_a_verdict()
            store.proxy.fault = None
            bench.recover()
    finally:
        store.proxy.fault = None
        publisher.value_of = publisher.event
    if reasons := list(bench.counter.failed.values())[given_up:]:
        raise DrillError(f"{len(reasons)} images were given up in a short outage, the first: {reasons[0]}")


def _moved(bench: Bench, before: int) -> float | None:
    """When the first retry topic has more records than `before`."""
    return time.monotonic() if bench.records_in("retry_1") > before else None


DRILLS: tuple[AnyDrill, ...] = (
    Drill(
        "s3-outlasts-hold",
        "S3 is down for longer than an event may hold its partition; the only worker is killed meanwhile.",
        outlast_hold,
        5,
        needs_store=True,
    ),
)
