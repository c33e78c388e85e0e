"""Labels for values that senders choose: the largest values have one of their own, all others share one."""

import heapq
from collections.abc import Callable, Collection, Mapping
from typing import Final

OTHER: Final = "other"
KNOWN: Final = 5000
"""Values whose counts are remembered to find the largest; of more, the smaller half is forgotten."""
REVIEW_SECONDS: Final = 60.0
DECAY: Final = 0.9
"""What of a count is left at the next review: a value that stopped loses its label after some of them."""
MARGIN: Final = 1.5
"""So many times the count of the smallest a value needs to take its place, so that labels do not come and go."""
LONGEST: Final = 128
"""Characters of a label."""


class TopLabels:
    """At most `top` labels and `other`. A value without a label counts under `other`; once it is among the largest, it
    gets one, and the smallest loses its own. For one thread."""

    def __init__(self, top: int, clock: Callable[[], float]) -> None:
        self._top = top
        self._clock = clock
        self._weights: dict[str, float] = {}
        self._shown: set[str] = set()
        self._reviewed_at = clock()

    def count(self, counts: Mapping[str, int]) -> dict[str, str]:
        """Counts these values up; the label of each."""
        labels: dict[str, str] = {}
        for whole, count in counts.items():
            value = whole[:LONGEST]
            self._weights[value] = self._weights.get(value, 0.0) + count
            if value not in self._shown and len(self._shown) < self._top and value != OTHER:
                self._shown.add(value)
            labels[whole] = value if value in self._shown else OTHER
        return labels

    def review(self) -> Collection[tuple[str, str]]:
        """Once a minute, or when too many values are known: the labels that ended, each with the one in its place."""
        now = self._clock()
        if now - self._reviewed_at < REVIEW_SECONDS and len(self._weights) <= KNOWN:
            return ()
        self._reviewed_at = now
        hidden = {value: weight for value, weight in self._weights.items() if value not in self._shown}
        largest = heapq.nlargest(self._top, hidden, key=hidden.__getitem__)
        smallest = sorted(self._shown, key=lambda value: self._weights.get(value, 0.0))
        changed = []
        for value, shown in zip(largest, smallest, strict=False):
            if value == OTHER or hidden[value] <= MARGIN * self._weights.get(shown, 0.0):
                break
            self._shown.remove(shown)
            self._shown.add(value)
            changed.append((shown, value))
        kept = dict(heapq.nlargest(KNOWN // 2, self._weights.items(), key=lambda each: each[1]))
        kept |= {value: self._weights.get(value, 0.0) for value in self._shown}
        self._weights = {value: weight * DECAY for value, weight in kept.items()}
        return changed
