"""Notices partitions that are behind and do not move. Pure; the clock is passed in."""

from collections.abc import Mapping

from worker.intake.log import Partition


class Watchdog:
    """Remembers when each partition last made progress: its frontier moved, or it had nothing to do."""

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._seen: dict[Partition, tuple[int, float]] = {}

    def observe(self, frontiers: Mapping[Partition, int], behind: frozenset[Partition], now: float) -> None:
        """`frontiers`: settled records so far, per assigned partition; `behind`: those with work to do."""
        self._seen = {
            partition: self._seen[partition]
            if partition in behind and partition in self._seen and self._seen[partition][0] == frontier
            else (frontier, now)
            for partition, frontier in frontiers.items()
        }

    def stalled(self, now: float) -> frozenset[Partition]:
        """Partitions that were behind all the time and settled nothing for the stall time."""
        return frozenset(p for p, (_, since) in self._seen.items() if now - since >= self._stall_seconds)
