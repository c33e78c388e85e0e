"""The status line of a running worker."""

import time
from collections.abc import Callable

from prometheus_client.metrics import MetricWrapperBase
from rich.text import Text

from worker.cli.console import STYLES, printable
from worker.telemetry.metrics import Metrics

WINDOW_SECONDS = 2.0
"""The time over which the rate is taken."""


class StatusLine:
    """Renders the state of a worker. `problems` returns its current health problems."""

    def __init__(
        self, metrics: Metrics, problems: Callable[[], tuple[str, ...]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._metrics = metrics
        self._problems = problems
        self._clock = clock
        self._since = clock()
        self._judged_then = 0.0
        self._rate = 0.0

    def __rich__(self) -> Text:
        events = by_label(self._metrics.events, "outcome")
        judged = events["scored"] + events["cached"] + events["failed"]
        now = self._clock()
        if now - self._since >= WINDOW_SECONDS:
            self._rate = (judged - self._judged_then) / (now - self._since)
            self._since, self._judged_then = now, judged
        actions = by_label(self._metrics.routes, "action")
        line = Text.assemble(
            (f"{judged:,.0f}", "bold"),
            f" judged, {self._rate:,.0f} a second; {events['cached']:,.0f} from the cache;",
            *((f" {actions.get(action, 0):,.0f} {action}", style) for action, style in STYLES.items()),
            f"; {events['failed']:,.0f} not judged; {self._behind():,.0f} waiting",
        )
        for problem in self._problems():
            line.append(f"\n{printable(problem)}", style="bold red")
        return line

    def _behind(self) -> float:
        return sum(by_label(self._metrics.consumer_lag_records, "partition").values())


def by_label(instrument: MetricWrapperBase, label: str) -> dict[str, float]:
    """The current values of a counter or gauge, summed by one of its labels."""
    values: dict[str, float] = {}
    for metric in instrument.collect():
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                key = sample.labels.get(label, "")
                values[key] = values.get(key, 0) + sample.value
    return values
