"""A counter by a label that senders choose: the largest values have series of their own, all others share one."""

import heapq
import threading
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter

OTHER: Final = "other"
KNOWN: Final = 5000
"""Values whose counts are remembered to find the largest; of more, the smaller half is forgotten."""
REVIEW_SECONDS: Final = 60.0
DECAY: Final = 0.9
"""What of a count is left at the next review: a value that stopped loses its series after some of them."""
MARGIN: Final = 1.5
"""So many times the count of the smallest a value needs to take its place, so that series do not come and go."""
LONGEST: Final = 128
"""Characters of a label."""


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
        self._top = top
        self._clock = clock
        self._lock = threading.Lock()
        self._weights: dict[str, float] = {}
        self._shown: set[str] = set()
        self._reviewed_at = clock()

    def add(self, counts: Mapping[str, int]) -> None:
        """Counts these values up."""
        with self._lock:
            told: Counts[str] = Counts()
            for whole, count in counts.items():
                value = whole[:LONGEST]
                self._weights[value] = self._weights.get(value, 0.0) + count
                if value not in self._shown and len(self._shown) < self._top and value != OTHER:
                    self._shown.add(value)
                told[value if value in self._shown else OTHER] += count
            for value, count in told.items():
                self._counter.labels(value).inc(count)
            now = self._clock()
            if now - self._reviewed_at >= REVIEW_SECONDS or len(self._weights) > KNOWN:
                self._reviewed_at = now
                self._review()

    def _review(self) -> None:
        hidden = {value: weight for value, weight in self._weights.items() if value not in self._shown}
        largest = heapq.nlargest(self._top, hidden, key=hidden.__getitem__)
        smallest = sorted(self._shown, key=lambda value: self._weights.get(value, 0.0))
        for value, shown in zip(largest, smallest, strict=False):
            if value == OTHER or hidden[value] <= MARGIN * self._weights.get(shown, 0.0):
                break
            self._counter.remove(shown)
            self._shown.remove(shown)
            self._counter.labels(value)
            self._shown.add(value)
        kept = dict(heapq.nlargest(KNOWN // 2, self._weights.items(), key=lambda each: each[1]))
        kept |= {value: self._weights.get(value, 0.0) for value in self._shown}
        self._weights = {value: weight * DECAY for value, weight in kept.items()}
