"""The engines of a replica: the current one, and replaced ones that callers still use."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from worker.apps.serve_engine import ModelNotServed
from worker.scoring.engine import Engine, Views

log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class _Guest:
    engine: Engine
    blank: Views
    asked_at: float
    calls: int = 0


class Hosted:
    """Engines by the digest of their model. Thread-safe.

    Intakes learn of a new model later than the engine does. So a replaced engine stays for `linger_seconds` after its
    last use, and no call is refused during the change. An engine is closed only when no call uses it.
    """

    def __init__(self, *, linger_seconds: float, clock: Callable[[], float]) -> None:
        self._linger = linger_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._guests: dict[str, _Guest] = {}
        self._current: str | None = None
        self._leaving: list[_Guest] = []

    def put(self, digest: str, engine: Engine, blank: Views) -> None:
        """Makes `engine` the current one. An engine of the same model is removed at once. `blank`: a batch for health
        checks.
        """
        with self._lock:
            if digest in self._guests:
                self._leaving.append(self._guests.pop(digest))
            if self._current in self._guests:
                self._guests[self._current].asked_at = self._clock()
            self._guests[digest] = _Guest(engine, blank, self._clock())
            self._current = digest
        self.close_idle()

    @contextmanager
    def use(self, digest: str) -> Iterator[Engine]:
        """Yields the engine of that model, which is not closed meanwhile. Raises ModelNotServed."""
        with self._hold(digest) as guest:
            yield guest.engine

    def try_current(self) -> None:
        """Runs a blank image through the current engine. Raises EngineError, or ModelNotServed without one."""
        with self._hold(self._current) as guest:
            guest.engine.infer(guest.blank)

    @contextmanager
    def _hold(self, digest: str | None) -> Iterator[_Guest]:
        with self._lock:
            guest = self._guests.get(digest) if digest is not None else None
            if guest is None:
                raise ModelNotServed(f"this engine serves {', '.join(self._guests) or 'no model'}, not {digest}")
            guest.calls += 1
        try:
            yield guest
        finally:
            with self._lock:
                guest.calls -= 1
                guest.asked_at = self._clock()
                is_leaving = guest in self._leaving
            if is_leaving:
                self.close_idle()

    def close_idle(self) -> None:
        """Closes replaced engines that no call uses and, if they are of other models, that were not used for
        `linger_seconds`.
        """
        with self._lock:
            now = self._clock()
            for digest, guest in list(self._guests.items()):
                if digest != self._current and not guest.calls and now - guest.asked_at >= self._linger:
                    self._leaving.append(self._guests.pop(digest))
                    log.info("engine_retired", digest=digest)
            idle = [guest for guest in self._leaving if not guest.calls]
            self._leaving = [guest for guest in self._leaving if guest.calls]
        for guest in idle:
            guest.engine.close()

    def close(self) -> None:
        """Closes all engines that are not in use. The process is about to end."""
        with self._lock:
            self._leaving.extend(self._guests.values())
            self._guests.clear()
            self._current = None
        self.close_idle()
