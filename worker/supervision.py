"""Runs the long-running loops of a process: restarts one that fails, counts it, and fails the health check when it does
not come back."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from worker.backoff import Backoff

log = structlog.get_logger(__name__)

Run = Callable[[threading.Event], None]
"""The body of a loop: works until the event is set, then returns. It may raise anything."""


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a loop is restarted. All values are seconds.

    The pause before a restart doubles with each failure in a row, from `first_pause` to `longest_pause`, with jitter. A
    loop that has not run for `steady_after` without a failure counts as failing; the health check fails once that has
    lasted for `unhealthy_after`.
    """

    first_pause: float = 0.25
    longest_pause: float = 10.0
    steady_after: float = 15.0
    unhealthy_after: float = 30.0

    @property
    def backoff(self) -> Backoff:
        return Backoff(self.first_pause, self.longest_pause, jitter=0.5)


class SupervisedLoop:
    """One loop on a thread of its own. Made by `Supervisor.start`."""

    def __init__(
        self,
        name: str,
        run: Run,
        expected: tuple[type[Exception], ...],
        policy: RestartPolicy,
        restarts: Counter,
        up: Gauge,
        clock: Callable[[], float],
        rng: random.Random,
    ) -> None:
        self.name = name
        self._run = run
        self._expected = expected
        self._policy = policy
        self._restarts = restarts.labels(name)
        self._up = up.labels(name)
        self._clock = clock
        self._rng = rng
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._failures = 0
        self._failing_since: float | None = None
        self._running_since: float | None = None
        self._up.set(1)
        self._thread = threading.Thread(target=self._supervise, name=f"sluice-{name}", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str | None:
        """What the health check says of the loop; None while it runs, or may still come back."""
        with self._lock:
            self._forget_failures_if_steady()
            if self._failing_since is None:
                if self._thread.is_alive() or self._stop.is_set():
                    return None
                return f"the loop {self.name} has ended"
            if self._clock() - self._failing_since < self._policy.unhealthy_after:
                return None
            return f"the loop {self.name} keeps failing: {self._failures} times in a row"

    def ask_to_stop(self) -> None:
        self._stop.set()

    def stop(self, timeout_seconds: float) -> bool:
        """Asks the loop to end and waits for it; whether it ended in time."""
        self.ask_to_stop()
        self._thread.join(timeout=timeout_seconds)
        ended = not self._thread.is_alive()
        if not ended:
            log.warning("loop_did_not_end", loop=self.name, seconds=timeout_seconds)
        return ended

    def _supervise(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                self._running_since = self._clock()
            try:
                self._run(self._stop)
                if self._stop.is_set():
                    return
                raise RuntimeError("the loop returned before it was asked to stop")  # noqa: TRY301
            except Exception as error:  # noqa: BLE001  # whatever a loop raises, it is restarted and told
                pause = self._failed(error)
            self._stop.wait(pause)

    def _failed(self, error: Exception) -> float:
        """Records a failure; the seconds to wait before the restart."""
        with self._lock:
            self._forget_failures_if_steady()
            self._running_since = None
            self._failures += 1
            if self._failing_since is None:
                self._failing_since = self._clock()
            failures = self._failures
        self._up.set(0)
        self._restarts.inc()
        pause = self._policy.backoff.seconds(failures, self._rng)
        told = {"loop": self.name, "error": f"{type(error).__name__}: {error}", "failures": failures}
        if isinstance(error, self._expected):
            log.warning("loop_failed", **told, restart_in_seconds=round(pause, 2))
        else:
            log.error("loop_failed", **told, restart_in_seconds=round(pause, 2), exc_info=error)
        return pause

    def _forget_failures_if_steady(self) -> None:
        since = self._running_since
        if self._failures and since is not None and self._clock() - since >= self._policy.steady_after:
            self._failures = 0
            self._failing_since = None
            self._up.set(1)
            log.info("loop_recovered", loop=self.name)


class Supervisor:
    """The loops of a process. Thread-safe.

    It exports `sluice_loop_restarts_total` and `sluice_loop_up`, both labelled by loop, to `registry`.
    """

    def __init__(
        self,
        registry: CollectorRegistry | None = None,
        *,
        policy: RestartPolicy = RestartPolicy(),  # frozen
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.registry = registry or CollectorRegistry()
        self._policy = policy
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311  # jitter is no secret
        self._restarts = Counter(
            "loop_restarts", "Restarts of a loop that failed.", ["loop"], namespace="sluice", registry=self.registry
        )
        self._up = Gauge(
            "loop_up", "1 while a loop runs, 0 while it fails.", ["loop"], namespace="sluice", registry=self.registry
        )
        self._lock = threading.Lock()
        self._loops: list[SupervisedLoop] = []

    def start(self, name: str, run: Run, *, expected: tuple[type[Exception], ...] = ()) -> SupervisedLoop:
        """Runs the loop until it is stopped or the supervisor is closed. `expected` errors, such as a server that is
        away, are logged without a traceback."""
        loop = SupervisedLoop(name, run, expected, self._policy, self._restarts, self._up, self._clock, self._rng)
        with self._lock:
            self._loops.append(loop)
        return loop

    def stop(self, loop: SupervisedLoop, timeout_seconds: float) -> bool:
        """Ends one loop, which no longer counts for health; whether it ended in time."""
        ended = loop.stop(timeout_seconds)
        with self._lock:
            self._loops = [each for each in self._loops if each is not loop]
        return ended

    def health_problems(self) -> tuple[str, ...]:
        """A sentence for each loop that does not come back; empty when all is well. Without error messages, which may
        hold addresses: those are in the log."""
        with self._lock:
            loops = list(self._loops)
        return tuple(problem for loop in loops if (problem := loop.problem) is not None)

    def close(self, timeout_seconds: float = 15.0) -> bool:
        """Ends all loops within the time; whether all did."""
        deadline = self._clock() + timeout_seconds
        with self._lock:
            loops = self._loops
            self._loops = []
        for loop in loops:
            loop.ask_to_stop()  # all at once: they end side by side
        ended = [loop.stop(max(0.0, deadline - self._clock())) for loop in loops]
        return all(ended)
