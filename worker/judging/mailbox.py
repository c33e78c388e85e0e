"""How other threads report to the thread that runs a pipeline."""

from collections.abc import Callable
from queue import Empty, SimpleQueue


class Mailbox:
    """Calls that other threads want made on the owner's thread, in the order they came."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[Callable[[], None]] = SimpleQueue()

    def post(self, call: Callable[[], None]) -> None:
        """From any thread; wakes the owner if it waits."""
        self._calls.put(call)

    def read(self, wait_seconds: float = 0.0) -> None:
        """Makes all calls that are there; waits at most so long for the first."""
        try:
            call = self._calls.get(timeout=wait_seconds) if wait_seconds > 0 else self._calls.get_nowait()
            while True:
                call()
                call = self._calls.get_nowait()
        except Empty:
            return
