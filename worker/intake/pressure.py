"""Backpressure as a rule: which partitions should be paused now."""

from dataclasses import dataclass

from worker.intake.delayed import DelayedJobs
from worker.intake.ledger import OffsetLedger
from worker.intake.log import Output, Partition


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way at once. A poll may overshoot each by what one poll brings."""

    records: int
    bytes: int
    records_per_partition: int


def partitions_to_pause(
    ledger: OffsetLedger[Output], delayed: DelayedJobs, bounds: Bounds, *, halted: bool
) -> frozenset[Partition]:
    """All partitions when the intake is `halted` or full; otherwise those whose own window is full, and those whose
    next records are not due.

    What is not due does not count as under way: it may lie there for an hour, and the others must be read meanwhile.
    Of each partition that is at most what one poll brings. Records whose events were moved away count only by their
    bytes: what stands behind them must be reached.
    """
    partitions = ledger.partitions()
    records, size = ledger.held - ledger.moved - len(delayed), ledger.held_bytes - delayed.bytes
    if halted or records >= bounds.records or size >= bounds.bytes:
        return partitions
    full = frozenset(p for p in partitions if ledger.held_in(p) - ledger.moved_in(p) >= bounds.records_per_partition)
    return full | delayed.partitions
