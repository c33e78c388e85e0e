"""Start-time fair queueing: whose turn it is, when several flows share a server by weights. Pure."""

import heapq
import itertools
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

MAX_REMEMBERED: Final = 10_000
"""Flows without work whose last turn is remembered. Forgetting one gives it at most one turn too early."""


class FairOrder(Generic[K]):
    """Orders flows so that each gets turns in proportion to its weight while it has work.

    A flow's next turn starts at its start tag S = max(v, F), where v is the start tag of the turn given last and F the
    finish tag of the flow's own last turn; that turn finishes at S + 1 / weight. The flow with the smallest start tag
    is next. A flow that had no work gets no credit for that time. While two flows f and g both have work, the turns n
    they get differ by |n_f / w_f - n_g / w_g| <= 1 / w_f + 1 / w_g at most, however fast the server is: theorem 1 of
    P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing: A Scheduling Algorithm for Integrated Services Packet
    Switching Networks", SIGCOMM 1996. Each call takes O(log flows).
    """

    def __init__(self, weight: Callable[[K], float]) -> None:
        """`weight` of a flow is more than 0."""
        self._weight = weight
        self._virtual_time = 0.0
        self._flows: list[tuple[float, int, K]] = []
        """The flows with work, as a heap: start tag, a number that breaks ties in order of arrival, name."""
        self._finished: dict[K, float] = {}
        """Finish tags of flows that have no work."""
        self._arrivals = itertools.count()

    def __bool__(self) -> bool:
        return bool(self._flows)

    def enter(self, flow: K) -> None:
        """The flow, which had no work, has some now."""
        start = max(self._virtual_time, self._finished.pop(flow, 0.0))
        heapq.heappush(self._flows, (start, next(self._arrivals), flow))

    @property
    def next(self) -> K:
        """The flow whose turn it is. Raises IndexError when none has work."""
        return self._flows[0][2]

    def serve(self, *, has_more: bool) -> None:
        """The flow whose turn it is was served one unit; `has_more`: it still has work."""
        start, _, flow = self._flows[0]
        self._virtual_time = start
        finish = start + 1.0 / self._weight(flow)
        if has_more:
            heapq.heapreplace(self._flows, (finish, next(self._arrivals), flow))
            return
        heapq.heappop(self._flows)
        if self._flows:
            self._remember(flow, finish)
        else:  # nothing waits, so nobody is ahead of anybody
            self._virtual_time = 0.0
            self._finished.clear()

    def _remember(self, flow: K, finish: float) -> None:
        if len(self._finished) >= MAX_REMEMBERED:
            self._finished = {name: tag for name, tag in self._finished.items() if tag > self._virtual_time}
            if len(self._finished) >= MAX_REMEMBERED:
                self._finished.clear()
        self._finished[flow] = finish
