"""How large batches should be, and how many under way at once, for an engine on this machine.

    python -m ops.benchmarks.sweep_benchmark [--short] [--out FOLDER] [--config FILE]

Every pair of a batch size and a number of batches in flight runs closed loop: a batch that returns makes room for the
next. It recommends the pair that keeps fewest images waiting among those within 3 % of the fastest: more images under
way cost latency and memory, and bring nothing. `--config` takes the settings whose model and engine are to be swept.
"""

import os
import statistics
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ops.benchmarks.inputs import sample_views
from ops.benchmarks.results import Options, console, machine, option_parser, publish, side_by_side, timed
from worker.charts import line_chart
from worker.scoring.engine import Engine
from worker.scoring.model import Model, load_model
from worker.scoring.opening import open_engine
from worker.settings import Settings, load_settings

BATCHES = (1, 2, 4, 8, 16, 32, 64)
IN_FLIGHT = (1, 2, 4, 8)
SECONDS = 1.5
"""How long a pair runs, about."""
ROUNDS = 2
WITHIN = 0.97


@dataclass(frozen=True, slots=True)
class Cell:
    """One pair: the median over the rounds. `batch_ms` is how long a batch was under way, the 95th percentile."""

    batch_size: int
    batches_in_flight: int
    images_per_second: float
    processor_ms: float
    batch_ms: float

    @property
    def images_in_flight(self) -> int:
        return self.batch_size * self.batches_in_flight


def sweep(model: Model, engine: Engine, options: Options) -> list[Cell]:
    """Every pair, in rounds, so that a busy minute of the machine spoils one round of all and not all of one."""
    batches = [size for size in ((1, 4) if options.short else BATCHES) if size <= engine.max_batch]
    pairs = [(size, flight) for size in batches for flight in ((1, 2) if options.short else IN_FLIGHT)]
    views = sample_views(model.manifest.views, max(batches))
    found: dict[tuple[int, int], list[Cell]] = {pair: [] for pair in pairs}
    for _ in range(1 if options.short else ROUNDS):
        for size, flight in pairs:
            batch = {name: rows[:size] for name, rows in views.items()}
            found[size, flight].append(_measure(model, engine, batch, size, flight, 0.1 if options.short else SECONDS))
    return [
        Cell(
            *pair,
            images_per_second=round(statistics.median(cell.images_per_second for cell in cells), 1),
            processor_ms=round(statistics.median(cell.processor_ms for cell in cells), 3),
            batch_ms=round(statistics.median(cell.batch_ms for cell in cells), 1),
        )
        for pair, cells in found.items()
    ]


def _measure(
    model: Model, engine: Engine, batch: Mapping[str, NDArray[np.uint8]], size: int, flight: int, seconds: float
) -> Cell:
    took: list[float] = []

    def infer() -> None:
        started = time.perf_counter()
        model.heads.score(engine.infer(batch))
        took.append(1000 * (time.perf_counter() - started))

    once = timed(1, infer).seconds
    times = max(2 * flight, round(seconds / once))
    took.clear()
    spent = timed(times * size, lambda: side_by_side(flight, times, infer))
    return Cell(size, flight, spent.per_second, spent.processor_ms, float(np.percentile(took, 95)))


def recommend(cells: list[Cell]) -> Cell:
    """The pair with the fewest images under way within 3 % of the fastest; of equals the faster."""
    fastest = max(cell.images_per_second for cell in cells)
    good = [cell for cell in cells if cell.images_per_second >= WITHIN * fastest]
    return min(good, key=lambda cell: (cell.images_in_flight, -cell.images_per_second))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings whose model and engine are swept")
    given = parser.parse_args()
    run(Options(given.short, given.out), load_settings(given.config, os.environ))


def run(options: Options, settings: Settings) -> None:
    model = load_model(settings.model, settings.s3)
    with closing(open_engine(settings, model)) as engine:
        cells = sweep(model, engine, options)
    best = recommend(cells)
    table = Table("batch", *(f"{flight} in flight" for flight in sorted({cell.batches_in_flight for cell in cells})))
    table.title = "images a second (95th percentile of a batch's time)"
    for size in sorted({cell.batch_size for cell in cells}):
        row = [cell for cell in cells if cell.batch_size == size]
        table.add_row(str(size), *(f"{cell.images_per_second:,.0f} ({cell.batch_ms:,.0f} ms)" for cell in row))
    report = {
        "measured_on": machine("openvino", "numpy"),
        "model": model.manifest.digest,
        "cells": [asdict(cell) for cell in cells],
        "recommended": {"batch_size": best.batch_size, "batches_in_flight": best.batches_in_flight},
    }
    series = {
        f"{flight} in flight": [
            (float(cell.batch_size), cell.images_per_second) for cell in cells if cell.batches_in_flight == flight
        ]
        for flight in sorted({cell.batches_in_flight for cell in cells})
    }
    plot = line_chart("Batches and how many in flight", "batch size", "images a second", series, doubling=True)
    publish("sweep", options, report, [table], plot)
    console.print(
        f"recommended: intake: {{batch_size: {best.batch_size}, batches_in_flight: {best.batches_in_flight}}}  "
        f"# {best.images_per_second:,.0f} images a second, {best.images_in_flight} under way",
        markup=False,
    )


if __name__ == "__main__":
    main()
