"""A counter by a label that senders choose: the largest values have series of their own, all others share one."""

import threading
from collections import Counter as Counts
from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter

from worker.telemetry.top_labels import OTHER, TopLabels


class TopCounter:
    """At most `top` series and `other`. A value without a series counts under `other`; once it is among the largest, it
    begins a series at 0, and the series of the smallest ends. Safe for many threads."""

    def __init__(
        self,
        name: str,
        text: str,
        label: str,
        registry: CollectorRegistry,
        *,
        top: int,
        clock: Callable[[], float],
        namespace: str = "sluice",
    ) -> None:
        self._counter = Counter(name, text, [label], namespace=namespace, registry=registry)
        self._counter.labels(OTHER)
        self._lock = threading.Lock()
        self._labels = TopLabels(top, clock)

    def add(self, counts: Mapping[str, int]) -> None:
        """Counts these values up."""
        with self._lock:
            labels = self._labels.count(counts)
            told: Counts[str] = Counts()
            for value, count in counts.items():
                told[labels[value]] += count
            for label, count in told.items():
                self._counter.labels(label).inc(count)
            for ended, begun in self._labels.review():
                self._counter.remove(ended)
                self._counter.labels(begun)
