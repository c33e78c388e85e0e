"""How long events are retried, and the heap of those that wait."""

import heapq
import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.backoff import Backoff

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long a passing fault is retried. The delay before attempt n+1 is uniform in
    [0, min(max, base·2ⁿ)]."""

    max_attempts: int
    base_seconds: float
    max_seconds: float
    deadline_seconds: float

    def delay(self, attempts: int, rng: random.Random) -> float:
        """Seconds to wait after so many failed attempts."""
        return Backoff(2.0 * self.base_seconds, self.max_seconds).seconds(attempts, rng)

    def is_exhausted(self, attempts: int, first_failed_at: float, now: float) -> bool:
        return attempts >= self.max_attempts or now - first_failed_at >= self.deadline_seconds


class DueHeap(Generic[T]):
    """Things to be done later, in the order they fall due."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._tie = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def __iter__(self) -> Iterator[T]:
        """All that wait, in no order."""
        return (item for _, _, item in self._heap)

    def entries(self) -> list[tuple[float, T]]:
        """All that wait, each with its time, in the order in which they fall due."""
        return [(due, item) for due, _, item in sorted(self._heap, key=lambda entry: entry[:2])]

    def next_due(self) -> float | None:
        """When the first falls due; None when nothing waits."""
        return self._heap[0][0] if self._heap else None

    def push(self, due: float, item: T) -> None:
        heapq.heappush(self._heap, (due, next(self._tie), item))

    def pop_due(self, now: float) -> list[T]:
        """All that fell due by `now`, earliest first."""
        due: list[T] = []
        while self._heap and self._heap[0][0] <= now:
            due.append(heapq.heappop(self._heap)[2])
        return due
