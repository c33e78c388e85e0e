"""One tenant sends very many events at once: the others do not wait for them."""

import json
import math
import os
import time

from ops.drills.bench import Bench
from ops.drills.drill import Drill
from ops.drills.publisher import RecordPosition
from ops.drills.stream_bench import DrillError

EVENTS = 2_000
"""Of one turn."""
OTHERS = 10
"""Events of another tenant that come right behind."""
FLOODS = 50
MOST_DELAY_SECONDS = 5.0
"""Behind FLOODS times EVENTS."""
MOST_DELAY_ON_BUSY_MACHINE = 60.0
"""Behind fewer: a short run tells that all events are judged, each once, and not how fast this machine is."""
PATIENCE_SECONDS = 900.0


def tenant_flood(bench: Bench, repeats: int) -> None:
    """Publishes `repeats` times EVENTS of one tenant as fast as it goes, and compares how long another's events wait
    behind them with how long they waited before."""
    (worker,) = bench.ensure_workers(1)
    usual = bench.publisher.rate
    alone = _slowest_of_next(bench)
    used, load = worker.processor_seconds(), os.getloadavg()[0]
    began, count = len(bench.publisher.published), repeats * EVENTS
    bench.publisher.value_of = lambda i: _of_tenant(bench.publisher.event(i), "flood")
    bench.publisher.rate = math.inf
    bench.wait(
        lambda: time.monotonic() if len(bench.publisher.published) - began >= count else None,
        f"{count} events are not published",
    )
    bench.publisher.value_of = bench.publisher.event
    bench.publisher.rate = usual
    _wait_for_usual_rate(bench)
    behind = _slowest_of_next(bench)
    used = worker.processor_seconds() - used
    bench.recoveries.append(behind)
    bench.wait(
        lambda: (
            time.monotonic() if not bench.counter.missing(bench.publisher.published, time.monotonic() - 5) else None
        ),
        f"the flood of {count} events is not judged",
        PATIENCE_SECONDS,
    )
    bench.notes.append(
        f"{OTHERS} events of another tenant took {alone:.1f} s before {count:,} events and {behind:.1f} s behind them; "
        f"the worker used {used:.1f} processor seconds meanwhile, on {os.cpu_count()} cores whose load was {load:.1f}"
    )
    if behind - alone > (MOST_DELAY_SECONDS if repeats >= FLOODS else MOST_DELAY_ON_BUSY_MACHINE):
        raise DrillError(f"another tenant's events were delayed by {behind - alone:.1f} s")


def _wait_for_usual_rate(bench: Bench) -> None:
    """Waits until the flood is acknowledged: what comes then are the other tenant's events."""
    while True:
        before = len(bench.publisher.published)
        time.sleep(0.1)
        if len(bench.publisher.published) - before <= 0.2 * bench.publisher.rate:
            return


def _slowest_of_next(bench: Bench) -> float:
    """The longest time, in seconds, from publication to verdict of the next OTHERS events."""
    start = time.monotonic()
    places: dict[RecordPosition, float] = {}

    def are_judged() -> float | None:
        published = sorted((at, place) for place, at in dict(bench.publisher.published).items() if at > start)
        places.update({place: at for at, place in published[:OTHERS]})
        enough = len(places) >= OTHERS and len(bench.counter.judged_of(places)) >= len(places)
        return time.monotonic() if enough else None

    bench.wait(are_judged, "the events of another tenant are not judged")
    return max((bench.counter.first_of({place}) or math.inf) - at for place, at in places.items())


def _of_tenant(value: bytes, tenant: str) -> bytes:
    return json.dumps(json.loads(value) | {"tenant": tenant}).encode()


DRILLS = (
    Drill(
        "tenant-flood",
        f"One tenant sends {EVENTS:,} events each time, all at once, and another {OTHERS} behind them, which wait at "
        f"most {MOST_DELAY_SECONDS:g} s longer than before (the time that is given).",
        tenant_flood,
        FLOODS,
    ),
)
