"""A circuit breaker for Redis: while it is down, callers do not wait for its timeout."""

import threading
from collections.abc import Callable

import structlog

from worker.backoff import Breaker

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0


class Outage:
    """A breaker that opens at the first failure and lets one caller through after each pause. The pause doubles from 1
    to 10 seconds, so that a hanging server causes few timeouts. One log line reports the outage and one its end.
    Thread-safe.
    """

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._breaker = Breaker(pause_seconds=FIRST_PAUSE_SECONDS, longest_pause_seconds=LONGEST_PAUSE_SECONDS)
        self._since = 0.0

    @property
    def is_on(self) -> bool:
        return self._breaker.is_open

    def lets_through(self) -> bool:
        """Whether the caller may call the server; it must then call `failed` or `succeeded`."""
        if not self._breaker.is_open:  # the usual case, without the lock
            return True
        with self._lock:
            return self._breaker.allow(self._clock())

    def failed(self, error: BaseException) -> None:
        with self._lock:
            if self._breaker.is_open:
                return
            self._since = self._clock()
            self._breaker.trip(self._since)
        log.warning(f"{self._what}_down", error=f"{type(error).__name__}: {error}")

    def succeeded(self) -> None:
        if not self._breaker.is_open:
            return
        with self._lock:
            if not self._breaker.is_open:
                return
            now = self._clock()
            seconds = now - self._since
            self._breaker.record(succeeded=True, now=now)
        log.info(f"{self._what}_up", after_seconds=round(seconds, 3))
