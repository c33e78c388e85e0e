"""The gateway's metrics, in addition to those of the pipeline."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
UNFINISHED: Final = "unfinished"
"""The answer label of a request whose caller disconnected, or that failed with an internal error."""


class Meter:
    """Counts requests by caller, a name from the settings, and by answer: the route's action, or the problem's kind."""

    def __init__(self, registry: CollectorRegistry, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._requests = Counter(
            "sluice_gateway_requests",
            "Requests to score, by caller and answer.",
            ["caller", "answer"],
            registry=registry,
        )
        self._seconds = Histogram(
            "sluice_gateway_request_seconds", "Seconds until the answer.", registry=registry, buckets=_SECONDS
        )
        self._under_way = Gauge(
            ("sluice_gateway_requests_in_flight"), ("Requests to score in progress."), registry=registry
        )

    @contextmanager
    def request(self, caller: str) -> Iterator[Callable[[str], None]]:
        """Measures a request; yields a function to call with its answer."""
        answer = UNFINISHED
        started = self._clock()

        def note(what: str) -> None:
            nonlocal answer
            answer = what

        with self._under_way.track_inprogress():
            try:
                yield note
            finally:
                self._requests.labels(caller, answer).inc()
                self._seconds.observe(self._clock() - started)
