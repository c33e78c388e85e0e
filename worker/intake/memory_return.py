"""Gives the memory of a backlog back to the system.

glibc keeps freed memory in an arena for each thread, and gives back only what lies at the end of one. After a backlog,
whose images were decoded on many threads, it keeps hundreds of megabytes.
"""

import ctypes
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

QUIET_SECONDS: Final = 10.0
"""How long nothing must be under way: memory that is needed again at once stays."""
WORTH_EVENTS: Final = 100
"""Fewer events since the last time are not worth it."""


class MemoryReturn:
    """Trims glibc's arenas once after each backlog, on a thread of its own, since that takes some milliseconds."""

    def __init__(self, trim: Callable[[], object] | None = None) -> None:
        """`trim`: absent, glibc's malloc_trim; nothing is done with another C library."""
        self._trim = trim or _malloc_trim()
        self._begun = 0
        self._quiet_since: float | None = None

    def turn(self, is_idle: bool, begun: int, now: float) -> None:
        """Called now and then. `begun`: the events since the start."""
        if self._trim is None:
            return
        if not is_idle:
            self._quiet_since = None
            return
        if self._quiet_since is None:
            self._quiet_since = now
        if begun - self._begun < WORTH_EVENTS or now - self._quiet_since < QUIET_SECONDS:
            return
        self._begun = begun
        threading.Thread(target=self._trim, name="memory-return", daemon=True).start()


def _malloc_trim() -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    found: Any = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return None if found is None else lambda: found(0)
