"""Scales the intake replicas on lag. Imports nothing of Sluice, because Serve's controller loads it by value."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

BACKLOG = "backlog_records"
"""Metric of a replica: records in its partitions that are not committed yet."""
PARTITIONS = "topic_partitions"
"""Metric of a replica: all partitions of the topic."""


class LagReport(Protocol):
    """A replica's report at one time."""

    @property
    def value(self) -> float: ...


class Context(Protocol):
    """The part of ray.serve.config.AutoscalingContext that the policy reads."""

    @property
    def target_num_replicas(self) -> int: ...

    @property
    def raw_metrics(self) -> dict[str, dict[Any, Sequence[LagReport]]] | None:
        """By metric and replica, oldest first."""


class LagPolicy:
    """Scales on the number of uncommitted records, at most to the number of partitions.

    Scales up at once, to one replica for each `records_per_replica` waiting records. Scales down by one replica when a
    tenth of that waits, because only removing a replica shows whether the rest keep up. Under a steady load that needs
    between n and n + 1 replicas, the count alternates between the two, no faster than Serve's `downscale_delay_s`
    allows. Serve's `upscale_delay_s`, `min_replicas` and `max_replicas` apply too. There is always at least one
    replica, because only a replica sees that records arrive.

    Only the latest report of each replica counts. Serve's averages over `look_back_period_s` would count the records of
    a moved partition twice, for its old and its new replica, and start up to half as many replicas again as needed.
    """

    IDLE_SHARE = 0.1

    def __init__(self, records_per_replica: int = 5000) -> None:
        if records_per_replica < 1:
            raise ValueError(f"records_per_replica is {records_per_replica}; it must be at least 1")
        self._records_per_replica = records_per_replica

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The target number of replicas, and no state. Without reports: the current number, and at least one."""
        reports = context.raw_metrics or {}
        backlog, partitions = _latest(reports.get(BACKLOG)), _latest(reports.get(PARTITIONS))
        target = max(1, context.target_num_replicas)
        if not backlog or not partitions:
            return target, {}
        waiting = sum(backlog)
        wanted = target
        if waiting > self._records_per_replica * target:
            wanted = math.ceil(waiting / self._records_per_replica)
        elif waiting < self.IDLE_SHARE * self._records_per_replica * target:
            wanted = target - 1
        return max(1, min(wanted, int(max(partitions)))), {}


def _latest(reports: dict[Any, Sequence[LagReport]] | None) -> list[float]:
    return [of_replica[-1].value for of_replica in (reports or {}).values() if of_replica]
