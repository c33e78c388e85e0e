"""Processes that wait for work."""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class _Process(Protocol):
    def close(self) -> object: ...


P = TypeVar("P", bound=_Process)


class SandboxPool(Generic[P]):
    """As many processes as threads use at once; one that is given back is used again. Safe for several threads."""

    def __init__(self, start: Callable[[], P]) -> None:
        self._start = start
        self._idle: list[P] = []
        self._lock = threading.Lock()
        self._closed = False

    def take(self) -> P:
        """A process that nobody else uses until it is given back. Raises what `start` raises."""
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._start()

    def give_back(self, process: P) -> None:
        """One that is in a good state; others are closed instead."""
        with self._lock:
            if not self._closed:
                self._idle.append(process)
                return
        process.close()

    def close(self) -> None:
        """Ends the idle processes, and each other one when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for process in idle:
            process.close()
