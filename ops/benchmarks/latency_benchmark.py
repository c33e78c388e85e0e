"""How long an event waits for its verdict, by the load: open loop, through the embedded pipeline.

    python -m ops.benchmarks.latency_benchmark [--short] [--out FOLDER]

Events are sent at the moments of a Poisson process, whatever has become of those before: a slow verdict does not hold
back the next event, as it would not in life. A latency counts from the moment an event was meant to be sent, so that a
sender that lags behind hides nothing (coordinated omission), until its verdict can be read in the log. Loads are shares
of what the same worker does when its input never runs dry, measured first and in the same run.
"""

import tempfile
import threading
import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from ops.benchmarks.pipeline_benchmark import distinct_jpegs, embedded_rate, file_events, running
from ops.benchmarks.results import Options, console, machine, option_parser, publish
from worker.charts import line_chart
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output
from worker.settings import FileSettings, Settings
from worker.wiring import build_embedded_worker

SHARES = (0.2, 0.4, 0.6, 0.8, 0.9)
SECONDS = 15.0
"""How long each load lasts."""
CAPACITY_IMAGES = 600
LOOK_SECONDS = 0.002
PATIENCE_SECONDS = 120.0


@dataclass(frozen=True, slots=True)
class Latencies:
    """One load, in milliseconds. `sent_late_ms` is how far the sender itself lagged, the 99th percentile."""

    share_of_capacity: float
    intended_per_second: float
    events: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    largest_ms: float
    sent_late_ms: float


def arrivals(per_second: float, seconds: float, random: np.random.Generator) -> list[float]:
    """The moments of a Poisson process, in seconds from its beginning; at least one."""
    moments = np.cumsum(random.exponential(1 / per_second, max(1, round(per_second * seconds))))
    return [float(moment) for moment in moments]


def measure(share: float, capacity: float, moments: list[float], paths: list[Path], folder: Path) -> Latencies:
    """Sends an event for each path at its moment, and waits for all verdicts. Raises TimeoutError without them."""
    settings = Settings(files=FileSettings(roots=(paths[0].parent,)))
    names = settings.kafka.topics
    intended: dict[bytes, float] = {}
    late: list[float] = []
    latencies: list[float] = []
    with (
        closing(open_embedded_topics(settings, folder)) as sending,
        closing(open_embedded_topics(settings, folder)) as reading,
        running(build_embedded_worker(settings, folder)),
    ):
        time.sleep(1.0)  # a worker that has just begun to read is no steady state
        began = time.perf_counter()

        def send() -> None:
            for moment, (key, value) in zip(moments, file_events(paths), strict=True):
                intended[key] = began + moment
                time.sleep(max(0.0, began + moment - time.perf_counter()))
                late.append(time.perf_counter() - intended[key])
                sending.append([Output(names.images, value, key)])

        sender = threading.Thread(target=send)
        sender.start()
        positions = dict.fromkeys(reading.ends(names.verdicts), 0)
        give_up = began + moments[-1] + PATIENCE_SECONDS
        while len(latencies) < len(moments):
            if time.perf_counter() > give_up:
                raise TimeoutError(f"{len(moments) - len(latencies)} of {len(moments)} events have no verdict")
            for record in reading.read(positions):
                positions[record.partition] = record.offset + 1
                latencies.append(time.perf_counter() - intended[record.key or b""])
            time.sleep(LOOK_SECONDS)
        sender.join()
    milliseconds = 1000 * np.array(latencies)
    return Latencies(
        share_of_capacity=share,
        intended_per_second=round(share * capacity, 2),
        events=len(moments),
        p50_ms=round(float(np.percentile(milliseconds, 50)), 1),
        p95_ms=round(float(np.percentile(milliseconds, 95)), 1),
        p99_ms=round(float(np.percentile(milliseconds, 99)), 1),
        largest_ms=round(float(milliseconds.max()), 1),
        sent_late_ms=round(1000 * float(np.percentile(late, 99)), 1),
    )


def run(options: Options) -> None:
    shares, seconds, images = ((0.5,), 1.0, 30) if options.short else (SHARES, SECONDS, CAPACITY_IMAGES)
    random = np.random.default_rng(1)
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jpegs = folder / "jpegs"
        jpegs.mkdir()
        paths = distinct_jpegs(jpegs, images)
        capacity = embedded_rate(paths, Settings(files=FileSettings(roots=(jpegs,))), folder / "capacity")
        console.print(f"capacity: {capacity:.1f} events a second")
        for share in shares:
            moments = arrivals(share * capacity, seconds, random)
            more = folder / f"jpegs-{share}"
            more.mkdir()
            distinct = distinct_jpegs(more, len(moments))  # a known image would come from the cache
            found.append(measure(share, capacity, moments, distinct, folder / f"load-{share}"))
            console.print(f"{share:.0%} of it: p99 {found[-1].p99_ms:,.0f} ms")
    table = Table("load", "events/s", "events", "p50", "p95", "p99", "largest", "sender's lag, p99")
    table.title = "milliseconds from the moment an event was meant to be sent until its verdict can be read"
    for column in table.columns[1:]:
        column.justify = "right"
    for one in found:
        times = (one.p50_ms, one.p95_ms, one.p99_ms, one.largest_ms, one.sent_late_ms)
        load = f"{one.share_of_capacity:.0%}"
        table.add_row(load, f"{one.intended_per_second:.1f}", str(one.events), *(f"{ms:,.0f}" for ms in times))
    series = {
        name: [(one.intended_per_second, value) for one, value in zip(found, values, strict=True)]
        for name, values in (
            ("p50", [one.p50_ms for one in found]),
            ("p95", [one.p95_ms for one in found]),
            ("p99", [one.p99_ms for one in found]),
        )
    }
    report = {
        "measured_on": machine("openvino"),
        "capacity_per_second": round(capacity, 2),
        "seconds_each": seconds,
        "loads": [asdict(one) for one in found],
    }
    plot = line_chart("Latency under open-loop load", "events a second", "milliseconds", series)
    publish("latency", options, report, [table], plot)


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
