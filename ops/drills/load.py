"""Many events at once: memory stays flat."""

import math
import time

from ops.drills.bench import Bench
from ops.drills.drill import Drill
from ops.drills.stream_bench import DrillError

EVENTS = 1_000
"""Of one turn."""
MOST_GROWTH = 0.1
"""Memory at the third and fourth quarter, above that at the second, as a part of it. In the first, buffers grow."""
QUARTER_SECONDS = 900.0


def flood(bench: Bench, repeats: int) -> None:
    """Publishes `repeats` times EVENTS as fast as it goes, and reads the worker's memory at each quarter's verdict."""
    (worker,) = bench.ensure_workers(1)
    published, seen = len(bench.publisher.published), bench.counter.seen()
    usual, count = bench.publisher.rate, repeats * EVENTS
    bench.publisher.rate = math.inf
    began = time.monotonic()
    sizes: list[int] = []
    for quarter in range(1, 5):

        def judged(quarter: int = quarter) -> float | None:
            if len(bench.publisher.published) - published >= count:
                bench.publisher.rate = usual
            return time.monotonic() if bench.counter.seen() - seen >= quarter * count // 4 else None

        bench.wait(judged, f"quarter {quarter} of {count} events is not judged", QUARTER_SECONDS)
        sizes.append(worker.resident_bytes())
    rate = count / (time.monotonic() - began)
    bench.recover()
    mebibytes = ", ".join(f"{size / 2**20:.0f}" for size in sizes)
    bench.notes.append(f"{rate:,.0f} events/s; {mebibytes} MiB resident at the quarters")
    if max(sizes[2:]) > (1 + MOST_GROWTH) * sizes[1]:
        raise DrillError(f"memory grew by more than {MOST_GROWTH:.0%}: {mebibytes} MiB at the quarters")


DRILLS = (
    Drill(
        "flood",
        f"{EVENTS:,} events each time, of images that were scored before, all at once on 100 partitions; memory grows "
        f"by at most {MOST_GROWTH:.0%} in the second half.",
        flood,
        200,
        partitions=100,
    ),
)
