"""Forms batches for the engine, by size or by age."""

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from worker.judging.job import Job
from worker.judging.prepare import Prepared

J = TypeVar("J", bound=Job)


@dataclass(slots=True)
class Batcher(Generic[J]):
    """Collects prepared images over all partitions.

    A batch is due when `size` images wait or the first has waited `wait_seconds`. An image that has been in a failed
    batch runs alone, so that it harms nobody else.
    """

    size: int
    wait_seconds: float
    _waiting: deque[tuple[float, Prepared[J]]] = field(default_factory=deque)
    _alone: deque[Prepared[J]] = field(default_factory=deque)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._alone)

    def add(self, prepared: Prepared[J], now: float) -> None:
        if prepared.job.engine_failures or prepared.job.engine_deaths:
            self._alone.append(prepared)
        else:
            self._waiting.append((now, prepared))

    def clear(self) -> list[Prepared[J]]:
        """Takes out all that waits."""
        taken = [*self._alone, *(prepared for _, prepared in self._waiting)]
        self._alone.clear()
        self._waiting.clear()
        return taken

    def due_at(self) -> float:
        """When the next batch is due though it is not full; meaningful while something waits."""
        if self._alone or len(self._waiting) >= self.size:
            return 0.0
        return self._waiting[0][0] + self.wait_seconds

    def next_batch(self, now: float, *, hurry: bool) -> list[Prepared[J]] | None:
        """The next batch that is due; with `hurry`, whatever waits."""
        if self._alone:
            return [self._alone.popleft()]
        if not self._waiting:
            return None
        if len(self._waiting) < self.size and not hurry and now - self._waiting[0][0] < self.wait_seconds:
            return None
        return [self._waiting.popleft()[1] for _ in range(min(self.size, len(self._waiting)))]
