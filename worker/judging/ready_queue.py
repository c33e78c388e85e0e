"""The jobs that wait to be prepared, in fair order: by lane, and within a lane by tenant."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from typing import Generic, TypeVar

from worker.judging.fair_order import FairOrder
from worker.judging.job import Job
from worker.judging.lanes import Lane

J = TypeVar("J", bound=Job)


class ReadyQueue(Generic[J]):
    """Lanes share turns by their weights, the tenants of a lane by theirs; jobs of one tenant and lane keep their
    order. Nothing waits for ever, and no turn is left unused while a job waits."""

    def __init__(self, lane_weights: Mapping[Lane, float], tenant_weight: Callable[[str], float]) -> None:
        """All weights are more than 0."""
        self._order: FairOrder[Lane] = FairOrder(lane_weights.__getitem__)
        self._lanes: dict[Lane, _LaneQueue[J]] = {lane: _LaneQueue(tenant_weight) for lane in Lane}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[J]:
        """All jobs, lane by lane, in no particular order of turns."""
        return chain.from_iterable(self._lanes.values())

    def waiting(self, lane: Lane) -> int:
        """Jobs that wait in a lane."""
        return len(self._lanes[lane])

    def extend(self, jobs: Iterable[J]) -> None:
        """Adds jobs, each behind those of its lane and tenant."""
        for job in jobs:
            queue = self._lanes[job.lane]
            if not queue:
                self._order.enter(job.lane)
            queue.add(job)
            self._length += 1

    def first(self) -> J:
        """The job that `pop` takes next. Raises IndexError when none waits."""
        return self._lanes[self._order.next].first()

    def pop(self) -> J:
        """Takes the next job out. Raises IndexError when none waits."""
        queue = self._lanes[self._order.next]
        job = queue.pop()
        self._order.serve(has_more=bool(queue))
        self._length -= 1
        return job

    def clear(self) -> None:
        """Drops all jobs."""
        while self._length:
            self.pop()


class _LaneQueue(Generic[J]):
    """The jobs of one lane, by tenant."""

    def __init__(self, tenant_weight: Callable[[str], float]) -> None:
        self._order: FairOrder[str] = FairOrder(tenant_weight)
        self._tenants: dict[str, deque[J]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[J]:
        return chain.from_iterable(self._tenants.values())

    def add(self, job: J) -> None:
        tenant = job.event.tenant
        waiting = self._tenants.get(tenant)
        if waiting is None:
            self._tenants[tenant] = deque((job,))
            self._order.enter(tenant)
        else:
            waiting.append(job)
        self._length += 1

    def first(self) -> J:
        return self._tenants[self._order.next][0]

    def pop(self) -> J:
        tenant = self._order.next
        waiting = self._tenants[tenant]
        job = waiting.popleft()
        if not waiting:
            del self._tenants[tenant]
        self._order.serve(has_more=bool(waiting))
        self._length -= 1
        return job
