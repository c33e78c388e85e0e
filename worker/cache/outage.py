"""A circuit breaker for Redis: while it is down, callers do not wait for its timeout."""

import threading
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 10.0


class Outage:
    """A breaker: on from the first fault, with one caller let through after each pause to see (half open).

    The pause doubles from 1 to 10 seconds, so a server that hangs costs its timeout ever less often. One log line tells
    of the outage and one of its end. Safe to use from several threads.
    """

    def __init__(self, what: str, clock: Callable[[], float]) -> None:
        self._what = what
        self._clock = clock
        self._lock = threading.Lock()
        self._since: float | None = None
        self._pause = FIRST_PAUSE_SECONDS
        self._next_probe = 0.0

    @property
    def is_on(self) -> bool:
        return self._since is not None

    def lets_through(self) -> bool:
        """Whether the caller may call the server; it must then call `failed` or `succeeded`."""
        if self._since is None:  # the usual case, without the lock
            return True
        with self._lock:
            now = self._clock()
            if self._since is not None and now < self._next_probe:
                return False
            self._pause = min(2 * self._pause, LONGEST_PAUSE_SECONDS)
            self._next_probe = now + self._pause
            return True

    def failed(self, error: BaseException) -> None:
        with self._lock:
            if self._since is not None:
                return
            self._since = self._clock()
            self._pause = FIRST_PAUSE_SECONDS
            self._next_probe = self._since + self._pause
        log.warning(f"{self._what}_down", error=f"{type(error).__name__}: {error}")

    def succeeded(self) -> None:
        if self._since is None:
            return
        with self._lock:
            if self._since is None:
                return
            seconds = self._clock() - self._since
            self._since = None
        log.info(f"{self._what}_up", after_seconds=round(seconds, 3))
