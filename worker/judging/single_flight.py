"""One image is scored once at a time, however many jobs carry it."""

import threading
from typing import Generic, TypeVar

from worker.cache.values import ScoreKey
from worker.judging.job import Job

J = TypeVar("J", bound=Job)


class SingleFlight(Generic[J]):
    """The first job of an image and prompt leads; later ones are its duplicates until it lands. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[ScoreKey, tuple[J, list[J]]] = {}

    def lead(self, key: ScoreKey, job: J) -> bool:
        """True when the job is to be scored; False when it waits as a duplicate of the one that is."""
        with self._lock:
            flight = self._flights.setdefault(key, (job, []))
            if flight[0] is job:
                return True
            flight[1].append(job)
            return False

    def land(self, key: ScoreKey, job: J) -> list[J]:
        """Ends a flight; returns the duplicates that waited for it. Empty for a job that leads none."""
        with self._lock:
            flight = self._flights.get(key)
            if flight is None or flight[0] is not job:
                return []
            del self._flights[key]
            return flight[1]
