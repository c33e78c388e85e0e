"""Which review queues are over their capacity while events are judged."""

from collections.abc import Callable, Mapping
from typing import Protocol

import structlog

from worker.policy import Policy
from worker.policy.overload import Overloaded, ReviewLoad, overloaded_queues
from worker.policy.shadow import NOTHING_OVERLOADED
from worker.policy.watch import ActivePolicies
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class OverloadSource(Protocol):
    """Tells the overloaded queues, by the capacities of each policy. For one thread."""

    def refresh(self, active: ActivePolicies) -> None:
        """Nothing changes between two calls."""
        ...

    def live(self, event_id: str) -> Overloaded:
        """By the live policy, for an event."""
        ...

    @property
    def shadows(self) -> Mapping[str, Overloaded]:
        """By the shadow policies, by their names."""
        ...


class OverloadWatch:
    """Compares the load of the review queues with their capacities. Logs when the overload of a queue begins and ends.

    An overload begins at the capacity and ends below a share of it (`worker.policy.overload.ENDS_BELOW`). Each worker
    keeps that state for itself: one that starts in between counts the queue as not overloaded.
    """

    def __init__(self, read: Callable[[], ReviewLoad | None], metrics: Metrics) -> None:
        """`read` returns the load, the same object as long as it has not changed."""
        self._read = read
        self._metrics = metrics
        self._seen: tuple[ActivePolicies, ReviewLoad | None] | None = None
        self._capacities: frozenset[str] = frozenset()
        self._live: Overloaded = ()
        self._shadows: Mapping[str, Overloaded] = NOTHING_OVERLOADED

    @property
    def shadows(self) -> Mapping[str, Overloaded]:
        return self._shadows

    def live(self, _event_id: str) -> Overloaded:
        return self._live

    def refresh(self, active: ActivePolicies) -> None:
        load = self._read()
        if self._seen is not None and self._seen[0] is active and self._seen[1] is load:
            return
        self._seen = active, load
        before, self._live = self._live, overloaded_queues(active.live.capacities, load, self._live)
        self._shadows = {
            name: overloaded_queues(policy.capacities, load, self._shadows.get(name, ()))
            for name, policy in active.shadows.items()
        }
        self._tell(active.live, load, frozenset(before))

    def _tell(self, policy: Policy, load: ReviewLoad | None, before: frozenset[str]) -> None:
        gauge = self._metrics.review_queue_overloaded
        for queue in self._capacities - policy.capacities.keys():
            gauge.remove(queue)
        self._capacities = frozenset(policy.capacities)
        for queue in self._capacities:
            gauge.labels(queue).set(queue in self._live)
        for queue in sorted(before.symmetric_difference(self._live)):
            waits = None if load is None else load.get(queue)
            known = {} if waits is None else {"open": waits.open, "oldest_seconds": round(waits.oldest_seconds)}
            if queue in before:
                log.info("review_overload_ended", queue=queue, load_known=load is not None, **known)
            else:
                log.warning("review_overload_began", queue=queue, **known)


class RecordedOverload:
    """What the past verdicts of events say: a replay judges each event as it was judged then."""

    def __init__(self, recorded: Mapping[str, Overloaded]) -> None:
        """`recorded`: overloaded queues by event id, of events that had any."""
        self._recorded = recorded

    @property
    def shadows(self) -> Mapping[str, Overloaded]:
        return NOTHING_OVERLOADED

    def refresh(self, active: ActivePolicies) -> None:
        """Past verdicts do not change."""

    def live(self, event_id: str) -> Overloaded:
        return self._recorded.get(event_id, ())
