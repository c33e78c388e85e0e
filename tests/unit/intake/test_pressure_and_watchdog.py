"""Which partitions are paused, and which are reported as stuck."""

import pytest

from worker.intake.delayed import DelayedJobs
from worker.intake.ledger import OffsetLedger
from worker.intake.log import Output, Partition
from worker.intake.pressure import Bounds, partitions_to_pause
from worker.intake.watchdog import Watchdog

A, B = Partition("images", 0), Partition("images", 1)
NOTHING_DELAYED = DelayedJobs(lambda _job: True)
BOUNDS = Bounds(records=10, bytes=1000, records_per_partition=4)


def a_ledger(a: int, b: int, size: int = 1) -> OffsetLedger[Output]:
    ledger: OffsetLedger[Output] = OffsetLedger()
    ledger.assign([A, B])
    for partition, count in ((A, a), (B, b)):
        for offset in range(count):
            ledger.receive(partition, offset, size)
    return ledger


@pytest.mark.parametrize(
    ("ledger", "paused"),
    [
        (a_ledger(3, 3), set()),
        (a_ledger(4, 3), {A}),
        (a_ledger(4, 9), {A, B}),
        (a_ledger(1, 1, size=500), {A, B}),
    ],
    ids=["room everywhere", "one window full", "too many records", "too many bytes"],
)
def test_what_is_full_is_paused(ledger: OffsetLedger[Output], paused: set[Partition]) -> None:
    assert partitions_to_pause(ledger, NOTHING_DELAYED, BOUNDS, halted=False) == paused


def test_a_halted_intake_pauses_all() -> None:
    assert partitions_to_pause(a_ledger(0, 0), NOTHING_DELAYED, BOUNDS, halted=True) == {A, B}


def test_a_partition_that_is_behind_and_does_not_move_is_reported_until_it_moves() -> None:
    watchdog = Watchdog(stall_seconds=60.0)
    watchdog.observe({A: 5, B: 5}, behind=frozenset({A}), now=0.0)
    watchdog.observe({A: 5, B: 5}, behind=frozenset({A}), now=59.0)
    assert watchdog.stalled(now=59.9) == set()
    watchdog.observe({A: 5, B: 5}, behind=frozenset({A}), now=60.0)
    assert watchdog.stalled(now=60.0) == {A}
    watchdog.observe({A: 6, B: 5}, behind=frozenset({A}), now=61.0)
    assert watchdog.stalled(now=61.0) == set()


def test_a_partition_that_was_taken_away_is_no_longer_watched() -> None:
    watchdog = Watchdog(stall_seconds=60.0)
    watchdog.observe({A: 5}, behind=frozenset({A}), now=0.0)
    watchdog.observe({B: 0}, behind=frozenset(), now=61.0)
    assert watchdog.stalled(now=61.0) == set()
