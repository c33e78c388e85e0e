"""How soon `sluice trust drift` reports a new generator among others, and how often it reports a false change.

Simulated, with fixed seeds; there is nothing to time. Qualities are drawn like the scores that people gave to the
images of the six generators of AGIQA-3K (Li et al., 2023; mean and standard deviation, from 0..5 to 1..5). The sender
names no generator, so that all images are in one cell. For five weeks it holds five of the generators; then the sixth
is mixed in.

python -m ops.benchmarks.drift_benchmark --out ops/benchmarks
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish
from worker.charts import bar_chart
from worker.trust.drift import DriftCell, DriftCounts, DriftWindows

SEED = 19
GENERATORS: Final = {
    "AttnGAN": (1.00, 0.27),
    "DALLE2": (2.61, 0.65),
    "glide": (1.10, 0.51),
    "midjourney": (2.98, 0.82),
    "sd1.5": (2.73, 0.71),
    "xl2.2": (3.28, 0.46),
}
MIXED: Final = (0.1, 0.2, 0.5)
SHOWN: Final = 0.2
A_DAY = 200
WINDOW, BEFORE = 7, 28
MOST_DAYS = 14
CELLS = 12
A_DAY_OF_CELL = 50
START = datetime(2026, 1, 1, tzinfo=UTC)
CELL = DriftCell("acme", "", "sha256:0")

Days = Sequence[NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Detection:
    """Of the streams with this generator mixed in, the part that raised an alarm within 14 days, looked at daily, and
    the images of it until then in the median (None where fewer than half did)."""

    generator: str
    mixed: float
    found: float
    images: float | None
    days: float | None


def main() -> None:
    args = option_parser(__doc__).parse_args()
    options = Options(short=args.short, out=args.out)
    rng = np.random.default_rng(SEED)
    streams = 2 if options.short else 12
    found = [_detection(name, share, streams, rng) for name in GENERATORS for share in MIXED]
    months = 1 if options.short else 12
    false = [_false_alarms(rng) for _ in range(months)]
    report = {
        "measured_on": machine("numpy"),
        "seed": SEED,
        "streams": streams,
        "images_a_day": A_DAY,
        "detection": [asdict(row) for row in found],
        "unchanged": {
            "months": months,
            "cells": CELLS,
            "images_a_day_of_a_cell": A_DAY_OF_CELL,
            "looks": 30 * months,
            "looks_with_an_alarm": sum(false),
        },
    }
    picture = bar_chart(
        f"Days until a new generator, {SHOWN:.0%} of the stream, is found",
        "median",
        {row.generator: row.days for row in found if row.mixed == SHOWN and row.days is not None},
    )
    publish("drift", options, report, [_detection_table(found), _false_table(sum(false), months)], picture)


def _drawn(names: Sequence[str], count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Qualities of images of these generators, as many of each."""
    parts = np.array([GENERATORS[name] for name in names])[rng.integers(len(names), size=count)]
    return np.clip(1 + 0.8 * rng.normal(parts[:, 0], parts[:, 1]), 1, 5)


def _detection(name: str, mixed: float, streams: int, rng: np.random.Generator) -> Detection:
    others = [each for each in GENERATORS if each != name]
    new = round(A_DAY * mixed)
    days: list[int] = []
    for _ in range(streams):
        stream = [_drawn(others, A_DAY, rng) for _ in range(BEFORE + WINDOW)]
        for day in range(1, MOST_DAYS + 1):
            stream.append(np.concatenate([_drawn(others, A_DAY - new, rng), _drawn([name], new, rng)]))
            if _alarm({CELL: stream}):
                days.append(day)
                break
    until = median(days) if 2 * len(days) >= streams else None
    return Detection(name, mixed, len(days) / streams, None if until is None else until * new, until)


def _false_alarms(rng: np.random.Generator) -> int:
    """The looks of 30 days that raise an alarm, though nothing changes."""
    names = list(GENERATORS)
    cells = {
        DriftCell("acme", name, "sha256:0"): [_drawn(names, A_DAY_OF_CELL, rng) for _ in range(BEFORE + WINDOW)]
        for name in (f"generator-{number}" for number in range(CELLS))
    }
    alarms = 0
    for _ in range(30):
        for stream in cells.values():
            stream.append(_drawn(names, A_DAY_OF_CELL, rng))
        alarms += _alarm(cells)
    return alarms


def _alarm(cells: dict[DriftCell, list[NDArray[np.float64]]]) -> bool:
    """Whether the last days of the streams raise an alarm."""
    counts = DriftCounts(DriftWindows.ending(START, days=WINDOW, against_days=BEFORE))
    for cell, stream in cells.items():
        for back, qualities in enumerate(reversed(stream[-WINDOW - BEFORE :])):
            at = START - timedelta(days=back, hours=12)
            for quality in qualities.tolist():
                counts.add_scored(cell, at, "e", quality)
    return any(each.alarms for each in counts.compare())


def _detection_table(rows: Sequence[Detection]) -> Table:
    table = Table("new generator", "share", "found", "its images until then", "days")
    for row in rows:
        number = ("-", "-") if row.images is None else (f"{row.images:,.0f}", f"{row.days:g}")
        table.add_row(row.generator, f"{row.mixed:.0%}", f"{row.found:.0%}", *number)
    return table


def _false_table(alarms: int, months: int) -> Table:
    table = Table("months", "looks", "looks with an alarm", title=f"nothing changes, {CELLS} cells")
    table.add_row(str(months), str(30 * months), str(alarms))
    return table


if __name__ == "__main__":
    main()
