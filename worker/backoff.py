"""When to call again what has failed: exponential backoff and a circuit breaker. Pure: time and randomness are
passed in."""

import random
from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds to wait after the n-th failure in a row: uniform in [(1 - jitter)·c, c], c = min(longest, first·2ⁿ⁻¹).

    With the jitter of 1, "full jitter", callers that failed together spread the most: Brooker, "Exponential Backoff And
    Jitter" (AWS Architecture Blog, 2015).
    """

    first_seconds: float
    longest_seconds: float
    jitter: float = 1.0

    def seconds(self, failures: int, rng: random.Random) -> float:
        """`failures` in a row, from 1 on."""
        ceiling = self.ceiling(failures)
        return rng.uniform(ceiling * (1.0 - self.jitter), ceiling)

    def ceiling(self, failures: int) -> float:
        """The longest wait after so many failures in a row."""
        return min(self.longest_seconds, self.first_seconds * 2.0 ** min(failures - 1, 30))


class Breaker:
    """Opens when too many of the recent calls failed, or the latest `min_calls` all did; lets a probe through after
    each pause; closes when one succeeds.

    The second condition is for an outage after a busy hour: the successes from before would keep the rate low while
    calls use up their attempts.

    While it is open, callers wait without counting attempts: the fault is not theirs. The pause doubles with each
    probe, from `pause_seconds` to `longest_pause_seconds`.
    """

    def __init__(
        self,
        *,
        min_calls: int = 20,
        failure_rate: float = 0.5,
        window_seconds: float = 10.0,
        pause_seconds: float = 2.0,
        longest_pause_seconds: float | None = None,
    ) -> None:
        """`longest_pause_seconds`: absent, all pauses are equal."""
        self._min_calls = min_calls
        self._failure_rate = failure_rate
        self._window = window_seconds
        self._backoff = Backoff(pause_seconds, longest_pause_seconds or pause_seconds)
        self._calls: deque[tuple[float, bool]] = deque()
        self._failed_in_a_row = 0
        self._probes = 0
        self._retry_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._retry_at is not None

    def retry_at(self) -> float:
        """When the next probe may go; meaningful while open."""
        return self._retry_at if self._retry_at is not None else 0.0

    def allow(self, now: float) -> bool:
        """Whether a call may go now. While open, each pause lets one through."""
        if self._retry_at is None:
            return True
        if now < self._retry_at:
            return False
        self._probes += 1
        self._retry_at = now + self._backoff.ceiling(self._probes + 1)
        return True

    def record(self, succeeded: bool, now: float) -> None:
        """Notes the outcome of a call."""
        self._failed_in_a_row = 0 if succeeded else self._failed_in_a_row + 1
        if self._retry_at is not None:
            if succeeded:
                self._retry_at = None
                self._calls.clear()
            return
        self._calls.append((now, succeeded))
        while self._calls[0][0] < now - self._window:
            self._calls.popleft()
        failures = sum(not ok for _, ok in self._calls)
        all_fail = self._failed_in_a_row >= self._min_calls and failures >= self._min_calls
        if all_fail or (len(self._calls) >= self._min_calls and failures >= self._failure_rate * len(self._calls)):
            self._open(now)

    def trip(self, now: float) -> None:
        """Opens at once, or waits for the whole pause again: the fault is known to be systemic."""
        self._open(now)

    def _open(self, now: float) -> None:
        if self._retry_at is None:
            self._probes = 0
        self._retry_at = now + self._backoff.ceiling(self._probes + 1)
