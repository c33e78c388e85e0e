"""Backpressure as a rule: which partitions should be paused now."""

from dataclasses import dataclass

from worker.intake.ledger import OffsetLedger
from worker.intake.log import Output, Partition


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be under way at once. A poll may overshoot each by what one poll brings."""

    records: int
    bytes: int
    records_per_partition: int


def partitions_to_pause(ledger: OffsetLedger[Output], bounds: Bounds, *, halted: bool) -> frozenset[Partition]:
    """All partitions when the intake is `halted` or full; otherwise those whose own window is full."""
    partitions = ledger.partitions()
    if halted or ledger.held >= bounds.records or ledger.held_bytes >= bounds.bytes:
        return partitions
    return frozenset(p for p in partitions if ledger.held_in(p) >= bounds.records_per_partition)
