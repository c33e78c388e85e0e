"""Decides which events are judged now and which are deferred, so that no tenant's events block another's. Pure."""

from collections.abc import Callable
from typing import Final

from worker.judging.lanes import Lane
from worker.settings import FairnessSettings

LONG_SECONDS: Final = 300.0
"""Events that far behind others of their tenant go to the long lane, so that a tenant which is a little over its share
waits only for what others put off within this time."""
DRAIN_SECONDS: Final = 0.1
"""How often the backlogs are drained."""
FIRST_GUESS: Final = 50.0
"""Events a second that a worker is taken to judge until that is measured."""
MEASURE_SECONDS: Final = 1.0
PUTTING_OFF_SECONDS: Final = 0.5
"""Live events count as being put off for so long after the last one was."""
SMOOTHING: Final = 0.3
"""The weight of the newest measurement of the capacity."""


class JudgingSpeed:
    """How many events a second the worker judges while it has more than enough to do."""

    def __init__(self) -> None:
        self.per_second = FIRST_GUESS
        self._measured = False
        self._since: float | None = None
        self._count = 0

    def observe(self, total: int, *, is_saturated: bool, now: float) -> None:
        """`total`: events that the worker has begun to judge since its start."""
        if not is_saturated or self._since is None:
            self._since = now if is_saturated else None
            self._count = total
        elif now - self._since >= MEASURE_SECONDS:
            measured = (total - self._count) / (now - self._since)
            if measured > 0:
                share = SMOOTHING if self._measured else 1.0
                self.per_second += share * (measured - self.per_second)
                self._measured = True
            self._since, self._count = now, total


class TenantBacklogs:
    """How many events of each tenant wait, were all tenants served at the same time at their shares.

    This is the fluid model that fair queueing approximates: A. K. Parekh, R. G. Gallager, "A Generalized Processor
    Sharing Approach to Flow Control in Integrated Services Networks", IEEE/ACM ToN 1 (1993). It needs to know only what
    came, not what became of it, so it holds for events that another worker judges.
    """

    def __init__(self, weight: Callable[[str], float]) -> None:
        self._weight = weight
        self._levels: dict[str, float] = {}
        self._weights = 0.0
        """Of all tenants that have a backlog, together."""
        self._drained_at = 0.0

    def drain(self, per_second: float, now: float) -> None:
        """Serves the tenants for the time since the last call."""
        seconds = now - self._drained_at
        if seconds < DRAIN_SECONDS:
            return
        self._drained_at = now
        if not self._levels:
            return
        per_weight = per_second * seconds / self._weights
        self._levels = {
            tenant: left
            for tenant, level in self._levels.items()
            if (left := level - per_weight * self._weight(tenant)) > 0
        }
        self._weights = sum(map(self._weight, self._levels))

    def clear(self) -> None:
        """Everything was served."""
        self._levels.clear()
        self._weights = 0.0

    def add(self, tenant: str, events: int, per_second: float) -> float:
        """Adds events; returns how many seconds the tenant's earlier ones take at its share of `per_second`."""
        weight = self._weight(tenant)
        level = self._levels.get(tenant)
        if level is None:
            level = 0.0
            self._weights += weight
        self._levels[tenant] = level + events
        return level * self._weights / (weight * per_second)


class Quotas:
    """Leaky buckets: how far each tenant is over its quota."""

    def __init__(self, settings: FairnessSettings) -> None:
        self._settings = settings
        self._buckets: dict[str, tuple[float, float]] = {}
        """Tenant → events in its bucket, and when that was so."""
        self.share = 1.0
        """The part of each tenant's events that this worker gets: that of the partitions that are its own."""

    def excess_seconds(self, tenant: str, events: int, now: float) -> float:
        """Counts events; returns after how many seconds they would be within the tenant's quota, 0 for now."""
        quota = self._settings.quota(tenant)
        if quota is None:
            return 0.0
        per_second = quota * self.share
        level, at = self._buckets.get(tenant, (0.0, now))
        level = max(0.0, level - per_second * (now - at))
        self._buckets[tenant] = level + events, now
        return max(0.0, level / per_second - self._settings.quota_burst_seconds)

    def forget_idle(self, now: float) -> None:
        """Drops buckets that are empty by now, so that memory does not grow with the names of tenants."""
        self._buckets = {
            tenant: (level, at)
            for tenant, (level, at) in self._buckets.items()
            if level > (self._settings.quota(tenant) or 0.0) * self.share * (now - at)
        }


class FairAdmission:
    """Says of each live event that needs the engine whether it is judged now, or in which surplus lane it waits.

    An event is put off when its tenant is over its quota; or when the worker has more live events than it judges in
    `delay_seconds`, and the tenant's own earlier events would take longer than that at the tenant's share. So the live
    events that stand before another tenant's in a partition are judged within about that time.
    """

    def __init__(self, settings: FairnessSettings, *, window: int) -> None:
        """`window`: events that the pipeline works on at once."""
        self._settings = settings
        self._window = window
        self.speed = JudgingSpeed()
        self.quotas = Quotas(settings)
        self._backlogs = TenantBacklogs(settings.weight)
        self._put_off_at = float("-inf")
        self._tidy_at = 0.0

    @property
    def room(self) -> int:
        """Events that a lane may have in memory: what the worker judges within `delay_seconds`, or works on at once."""
        return max(self._window, int(self.speed.per_second * self._settings.delay_seconds))

    def turn(self, begun: int, *, is_saturated: bool, now: float) -> None:
        """`begun`: events that the worker has begun to judge since its start; `is_saturated`: only its own speed keeps
        it from beginning more. Called in each turn of the loop."""
        self.speed.observe(begun, is_saturated=is_saturated, now=now)
        self._backlogs.drain(self.speed.per_second, now)
        if now >= self._tidy_at:
            self._tidy_at = now + MEASURE_SECONDS
            self.quotas.forget_idle(now)

    def is_putting_off(self, now: float) -> bool:
        """Live events are being put off, so that others may stand behind them."""
        return now - self._put_off_at < PUTTING_OFF_SECONDS

    def forget_backlogs(self) -> None:
        """Nothing waits any more, as far as this worker knows."""
        self._backlogs.clear()

    def lane(
        self, tenant: str, events: int, own: Lane, *, live: int, now: float, is_alone: bool = False, again: bool = False
    ) -> Lane:
        """The lane for events of one record, whose own lane is `own`: live or priority. `live`: events of these two
        lanes that are in memory and not judged. `is_alone`: there is no other tenant. `again`: the events were counted
        against the quota before."""
        if not self._settings.defer_surplus:
            return own
        over_quota = 0.0 if again else self.quotas.excess_seconds(tenant, events, now)
        seconds = self._backlogs.add(tenant, events, self.speed.per_second)
        # What is let in now stands before all that is not read yet; so while events are put off, only as much as keeps
        # the pipeline busy.
        room = self._window if self.is_putting_off(now) else self.room
        has_share = is_alone and self._settings.defer_surplus == "auto"
        if not over_quota and (has_share or live < room or seconds <= self._settings.delay_seconds):
            return own
        self._put_off_at = now
        return Lane.SURPLUS if max(seconds, over_quota) <= LONG_SECONDS else Lane.SURPLUS_LONG
