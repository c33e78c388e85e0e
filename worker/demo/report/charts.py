"""Where the marks of the report's charts go. Drawing them is the template's work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.demo.report.entry import ReportEntry
from worker.demo.report.tally import BIN_WIDTH, BINS, HIGHEST, LOWEST

ACTIONS = ("reject", "review", "pass")
"""In the order in which they are stacked: the worst stands on the axis."""

WORDS = ("bad", "poor", "fair", "good", "perfect")
"""What 1, 2, 3, 4 and 5 mean."""


@dataclass(frozen=True, slots=True)
class AxisTick:
    at: float
    label: str
    word: str = ""


@dataclass(frozen=True, slots=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    action: str
    title: str


@dataclass(frozen=True, slots=True)
class Histogram:
    """A plot area of `width` x `height` with its origin at the upper left."""

    width: int
    height: int
    bars: Sequence[Bar]
    x_ticks: Sequence[AxisTick]
    y_ticks: Sequence[AxisTick]


@dataclass(frozen=True, slots=True)
class Dot:
    x: float
    y: float
    action: str
    title: str


@dataclass(frozen=True, slots=True)
class Scatter:
    """A square plot area of `side`; both axes run over the scale of quality."""

    side: int
    dots: Sequence[Dot]
    ticks: Sequence[AxisTick]


def _steps(highest: int) -> Sequence[int]:
    """About four round numbers from 0 to `highest` or a little over."""
    step = 1
    while highest / step > 4:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return range(0, (highest + step - 1) // step * step + 1, step)


def histogram(bins: Sequence[Mapping[str, int]], width: int = 640, height: int = 200) -> Histogram:
    """How many images had which quality, stacked by route. `bins` are the tally's."""
    steps = _steps(max(1, *(sum(numbers.values()) for numbers in bins)))
    unit = height / steps[-1]
    slot = width / BINS
    bars = []
    for index, numbers in enumerate(bins):
        low = LOWEST + index * BIN_WIDTH
        base = float(height)
        for action in ACTIONS:
            if number := numbers.get(action, 0):
                base -= number * unit
                title = f"{low:.1f} to {low + BIN_WIDTH:.1f}: {number} {action}"
                bars.append(Bar(index * slot + 1, base, slot - 2, number * unit, action, title))
    x_ticks = [
        AxisTick((value - LOWEST) / (HIGHEST - LOWEST) * width, str(value), word)
        for value, word in enumerate(WORDS, start=1)
    ]
    return Histogram(width, height, bars, x_ticks, [AxisTick(height - value * unit, f"{value:,}") for value in steps])


def scatter(entries: Sequence[ReportEntry], side: int = 320) -> Scatter:
    """The model's score (upwards) against the human score (to the right) of every entry that has both."""

    def along(value: float) -> float:
        return (min(max(value, LOWEST), HIGHEST) - LOWEST) / (HIGHEST - LOWEST) * side

    dots = [
        Dot(
            along(entry.human),
            side - along(entry.quality),
            entry.route.action,
            f"{entry.name}: people {entry.human:.2f}, model {entry.quality:.2f}",
        )
        for entry in entries
        if entry.human is not None and entry.quality is not None
    ]
    return Scatter(side, dots, [AxisTick(along(value), str(value), word) for value, word in enumerate(WORDS, start=1)])
