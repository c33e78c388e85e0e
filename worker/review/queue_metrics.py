"""How much waits in each review queue, and for how long, as metrics."""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.review.answers import QueueOverview
from worker.settings import ReviewSettings

REFRESH_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class _Sample:
    queue: str
    open: int
    overdue: int
    oldest_seconds: float
    decide_within_seconds: float | None


class QueueMetrics(Collector):
    """Series of the queues as they were at the last look: a scrape never waits for Redis. A queue without a limit on
    age has no series for it.

    `sluice_review_open_items`, `sluice_review_overdue_items` (open items past the time they were due by priority),
    `sluice_review_oldest_seconds` (0 without open items) and `sluice_review_decide_within_seconds`, all by queue.
    """

    def __init__(
        self, overview: Callable[[], Sequence[QueueOverview]], settings: ReviewSettings, now: Callable[[], datetime]
    ) -> None:
        self._overview = overview
        self._settings = settings
        self._now = now
        self._samples: tuple[_Sample, ...] = ()

    def run(self, stop: threading.Event) -> None:
        """Looks at the queues until `stop`. Raises what `overview` raises."""
        while not stop.is_set():
            self.refresh()
            stop.wait(REFRESH_SECONDS)

    def refresh(self) -> None:
        now = self._now()
        self._samples = tuple(self._sample(queue, now) for queue in self._overview())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        samples = self._samples
        yield _family("open_items", "Open items of a review queue.", {s.queue: s.open for s in samples})
        yield _family("overdue_items", "Open items past the time they were due.", {s.queue: s.overdue for s in samples})
        yield _family(
            "oldest_seconds", "How long the oldest open item has waited.", {s.queue: s.oldest_seconds for s in samples}
        )
        yield _family(
            "decide_within_seconds",
            "How long an item may wait by review.queues.NAME.decide_within_minutes.",
            {s.queue: s.decide_within_seconds for s in samples if s.decide_within_seconds is not None},
        )

    def _sample(self, queue: QueueOverview, now: datetime) -> _Sample:
        minutes = self._settings.queue(queue.name).decide_within_minutes
        return _Sample(
            queue.name,
            queue.open,
            queue.overdue,
            max(0.0, (now - queue.oldest_at).total_seconds()) if queue.oldest_at is not None else 0.0,
            None if minutes is None else 60 * minutes,
        )


def _family(name: str, text: str, values: "dict[str, float]") -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"sluice_review_{name}", text, labels=["queue"])
    for queue, value in values.items():
        family.add_metric([queue], value)
    return family
