"""Threads of their own for a kind of request, so that no kind takes those of the others."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

_T = TypeVar("_T")


class ThreadBudget:
    """At most `threads` of an event loop at once; further requests wait for one."""

    def __init__(self, name: str, threads: int) -> None:
        self._threads = threads
        self._limiter: RunVar[CapacityLimiter] = RunVar(name)

    async def run(self, work: Callable[..., _T], *arguments: object) -> _T:
        """What `work` returns, called on one of the threads."""
        return await to_thread.run_sync(work, *arguments, limiter=self._of_this_loop())

    def _of_this_loop(self) -> CapacityLimiter:
        try:
            return self._limiter.get()
        except LookupError:
            limiter = CapacityLimiter(self._threads)
            self._limiter.set(limiter)
            return limiter
