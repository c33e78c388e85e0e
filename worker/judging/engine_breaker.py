"""Whether the engine answers, since when it does not, and which image is to blame for a failed batch."""

from typing import Final

from schemas import Failure, FailureReason
from worker.backoff import Breaker
from worker.judging.fetch_retries import GivenUp
from worker.judging.job import Job

FAILURES_TO_BLAME: Final = 2
"""So often an image must fail in an engine that then judges a blank image, the last time alone, to be to blame."""
DEATHS_TO_BLAME: Final = 3
"""So often a working engine must stop working on an image, the last time alone, for that image to be to blame."""


class EngineBreaker:
    """Opens when the engine fails on a blank image too. While it is open, only a blank image goes to the engine now and
    then, and the first one that succeeds closes it. Pure; the clock is passed in."""

    def __init__(self, *, outage_seconds: float) -> None:
        """`outage_seconds`: after so long without a success the engine counts as broken."""
        self._outage_seconds = outage_seconds
        self._breaker = Breaker()
        self._down_since: float | None = None
        self._error = ""

    @property
    def is_open(self) -> bool:
        return self._breaker.is_open

    @property
    def error(self) -> str:
        """What the engine failed with last."""
        return self._error

    def retry_at(self) -> float:
        """When the next blank image may go; meaningful while open."""
        return self._breaker.retry_at()

    def may_check(self, now: float) -> bool:
        """Whether a blank image may go now; meaningful while open."""
        return self._breaker.allow(now)

    def succeeded(self, now: float) -> None:
        self._breaker.record(True, now)
        self._down_since = None

    def failed(self, error: Exception, now: float) -> None:
        """The engine failed on a blank image."""
        self._breaker.trip(now)
        self._error = described(error)
        if self._down_since is None:
            self._down_since = now

    def health_problem(self, now: float) -> str | None:
        """What is wrong once the engine has been down for `outage_seconds`."""
        down = 0.0 if self._down_since is None else now - self._down_since
        if down < self._outage_seconds:
            return None
        return f"the engine has answered no batch for {down:.0f} s; last error: {self._error}"


def is_to_blame(job: Job, batch_size: int) -> bool:
    """Whether a job that has just failed is given up; if not, it is tried again, alone."""
    too_many = job.engine_failures >= FAILURES_TO_BLAME or job.engine_deaths >= DEATHS_TO_BLAME
    return batch_size == 1 and too_many


def described(error: Exception) -> str:
    """An engine's error for people, bounded: a library may repeat its input."""
    return f"{type(error).__name__}: {error}"[:1000]


def engine_failure(message: str, job: Job, *, retriable: bool) -> GivenUp:
    """Why a job is given up at which the engine has failed."""
    failure = Failure(reason=FailureReason.ENGINE_FAILED, message=message[:1000], attempts=max(1, job.engine_failures))
    return GivenUp(failure, retriable)
