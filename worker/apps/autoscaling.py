"""How many intake replicas there should be. Imports nothing of ours: Serve's controller loads it by value."""

import math
from collections.abc import Sequence
from typing import Any, Protocol

BACKLOG = "backlog_records"
"""What a replica reports: records that wait in its partitions, or are read and not yet committed."""
PARTITIONS = "topic_partitions"
"""What a replica reports: partitions of the topic, its own and others'."""


class LagReport(Protocol):
    """What a replica reported at one time."""

    @property
    def value(self) -> float: ...


class Context(Protocol):
    """What the policy reads of ray.serve.config.AutoscalingContext."""

    @property
    def target_num_replicas(self) -> int: ...

    @property
    def raw_metrics(self) -> dict[str, dict[Any, Sequence[LagReport]]] | None:
        """By name and replica, oldest first."""


class LagPolicy:
    """Scales on how many records wait; never beyond the partition count, where a replica would have nothing to read.

    Up at once to as many replicas as have `records_per_replica` waiting each. Down by one when a tenth of that waits:
    only by leaving one out can it be known that one fewer keeps up. In between nothing changes. So under a steady load
    that needs more than n replicas and less than n + 1, the count goes between the two, no faster than Serve's
    `downscale_delay_s` lets it. Serve's `upscale_delay_s`, `min_replicas` and `max_replicas` hold besides. There is
    always one: nobody else would see that records come.

    Only the latest report of each replica counts. Serve's averages over `look_back_period_s` would count the records of
    partitions that have moved twice, with the replica that had them and the one that has them, and so bring half as
    many replicas again as a backlog needs.
    """

    IDLE_SHARE = 0.1

    def __init__(self, records_per_replica: int = 5000) -> None:
        if records_per_replica < 1:
            raise ValueError(f"records_per_replica is {records_per_replica}; it must be at least 1")
        self._records_per_replica = records_per_replica

    def __call__(self, context: Context) -> tuple[int, dict[str, Any]]:
        """The wanted number of replicas, and no state. Without any report: as many as there are, and at least one."""
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
