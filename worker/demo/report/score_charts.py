"""The charts of the report."""

from collections.abc import Mapping, Sequence

from worker.charts import Axis, Bar, Chart, Dot, Tick
from worker.demo.report.entry import ReportEntry
from worker.demo.report.tally import BIN_WIDTH, HIGHEST, LOWEST

ACTIONS = ("reject", "review", "pass")
"""In the order in which they are stacked: the worst stands on the axis."""

WORDS = ("bad", "poor", "fair", "good", "perfect")
"""What 1, 2, 3, 4 and 5 mean."""


def histogram(bins: Sequence[Mapping[str, int]]) -> Chart:
    """How many images had which quality, stacked by route. `bins` are the tally's."""
    bars = []
    for index, numbers in enumerate(bins):
        left, bottom = LOWEST + index * BIN_WIDTH, 0
        for action in ACTIONS:
            if count := numbers.get(action, 0):
                title = f"{left:.1f} to {left + BIN_WIDTH:.1f}: {count} {action}"
                bars.append(Bar(left, left + BIN_WIDTH, bottom, bottom + count, f"var(--{action})", title))
                bottom += count
    return Chart(
        "Number of images by quality, from 1 (bad) to 5 (perfect), and route",
        Axis("", LOWEST, HIGHEST, [Tick(value, str(value), word) for value, word in enumerate(WORDS, start=1)]),
        Axis.from_zero("", max(1, *(sum(numbers.values()) for numbers in bins)), whole=True),
        bars=bars,
        width=640,
        height=200,
    )


def scatter(entries: Sequence[ReportEntry]) -> Chart:
    """The model's score (upwards) against the human score (to the right) of every entry that has both."""
    dots = [
        Dot(
            entry.human,
            entry.quality,
            f"var(--{entry.route.action})",
            f"{entry.name}: human {entry.human:.2f}, model {entry.quality:.2f}",
        )
        for entry in entries
        if entry.human is not None and entry.quality is not None
    ]
    ticks = [Tick(value, str(value)) for value in range(1, len(WORDS) + 1)]
    return Chart(
        "The model's score of each image against its mean human score",
        Axis("people", LOWEST, HIGHEST, ticks),
        Axis("model", LOWEST, HIGHEST, ticks),
        dots=dots,
        diagonal=True,
    )
