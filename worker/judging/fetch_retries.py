"""What becomes of an event whose image could not be fetched: again later, when the store is back, or given up."""

import random
from typing import Generic, TypeVar

from schemas import Failure, FailureReason, S3Reference
from worker.images.errors import TransientFetchError
from worker.judging.breaker import Breaker
from worker.judging.job import Job
from worker.judging.retries import DueHeap, RetryPolicy

J = TypeVar("J", bound=Job)

PROBES_TO_BLAME = 5


class FetchRetries(Generic[J]):
    """Holds jobs that wait for another attempt; while they wait they hold nothing else. Belongs to the loop's thread.

    A breaker watches over the object store, that all events need: while it is open, attempts do not count.
    """

    def __init__(self, policy: RetryPolicy, store: Breaker, rng: random.Random, *, outage_seconds: float) -> None:
        """`outage_seconds`: the longest that the store may be down before what it does not give is given up."""
        self._policy = policy
        self._store = store
        self._rng = rng
        self._outage_seconds = outage_seconds
        self._waiting: DueHeap[J] = DueHeap()

    @property
    def store_is_down(self) -> bool:
        return self._store.is_open

    def due(self, now: float) -> list[J]:
        """The jobs whose time has come."""
        return self._waiting.pop_due(now)

    def admit(self, job: J, now: float) -> bool:
        """Whether the job may go to its store now; if not, it comes back when it is due."""
        if not _is_stored(job) or self._store.allow(now):
            return True
        self._wait_for_the_store(job)
        return False

    def fetched(self, job: J, now: float) -> None:
        """Notes that the job's image was to be had."""
        if _is_stored(job):
            self._store.record(True, now)

    def failed(self, job: J, error: TransientFetchError, now: float) -> Failure | None:
        """Why the job is given up; None where it will be tried again."""
        if _is_stored(job):
            self._store.record(False, now)
            if self._store.is_open:
                return self._failed_in_an_outage(job, error, now)
        job.attempts += 1
        if job.first_failed_at is None:
            job.first_failed_at = now
        if self._policy.is_exhausted(job.attempts, job.first_failed_at, now):
            return _given_up(error, job.attempts, now - job.first_failed_at)
        self._waiting.push(now + self._policy.delay(job.attempts, self._rng), job)
        return None

    def _failed_in_an_outage(self, job: J, error: TransientFetchError, now: float) -> Failure | None:
        """The store is down, not this object: the attempt does not count.

        Unless it fails for longer than outages last: a few objects that are too slow to be fetched would keep the
        breaker open, and all others waiting, for ever.
        """
        job.first_failed_at = None
        job.probes += 1
        if job.probed_since is None:
            job.probed_since = now
        waited = now - job.probed_since
        if job.probes >= PROBES_TO_BLAME and waited >= self._outage_seconds:
            return _given_up(error, job.attempts + job.probes, waited)
        self._wait_for_the_store(job)
        return None

    def _wait_for_the_store(self, job: J) -> None:
        self._waiting.push(self._store.retry_at() + self._rng.uniform(0.0, self._policy.base_seconds), job)


def _is_stored(job: Job) -> bool:
    return isinstance(job.event.image, S3Reference)


def _given_up(error: TransientFetchError, attempts: int, seconds: float) -> Failure:
    message = f"{error}; gave up after {attempts} attempts in {seconds:.1f} s"
    return Failure(reason=FailureReason.FETCH_FAILED, message=message, attempts=attempts)
