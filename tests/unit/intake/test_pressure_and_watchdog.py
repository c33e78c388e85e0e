"""Which partitions are paused, and which are reported as stuck."""

from datetime import UTC, datetime

import pytest

from schemas import ImageEvent, InlineReference
from worker.intake.delayed import DelayedJobs
from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import Output, Partition, Record
from worker.intake.pressure import Bounds, partitions_to_pause
from worker.intake.watchdog import Watchdog
from worker.intake.work import RecordJob, RecordWork

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


def test_records_that_were_moved_away_do_not_keep_those_behind_them_from_being_read() -> None:
    ledger = a_ledger(0, 3)
    for offset in range(12):
        ticket = ledger.receive(A, offset, 1)
        if offset > 1:
            ledger.finish(ticket, (Output("images.surplus", b"x"),), 1, is_moved=True)
    assert partitions_to_pause(ledger, NOTHING_DELAYED, BOUNDS, halted=False) == set()
    ledger.drop([A])
    assert (ledger.moved, ledger.held) == (0, 3)


def test_moved_records_count_by_their_bytes_until_they_are_committed() -> None:
    ledger = a_ledger(0, 0)
    ledger.finish(ledger.receive(A, 0, 1), (Output("images.surplus", b"x"),), 2000, is_moved=True)
    assert partitions_to_pause(ledger, NOTHING_DELAYED, BOUNDS, halted=False) == {A, B}
    batch = ledger.take()
    assert batch is not None
    ledger.settle(batch)
    assert (ledger.moved, ledger.moved_in(A), ledger.held_bytes) == (0, 0, 0)


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


def a_job(partition: Partition, offset: int) -> RecordJob:
    event = ImageEvent(id="1", occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=InlineReference(bytes=b"x"))
    record = Record(partition, offset, b"0123456789")
    return RecordJob(event, 0.0, RecordWork(record, Ticket(partition, 1, offset), [()], 1), 0)


def test_what_is_not_due_pauses_its_partition_and_takes_no_room_from_the_others() -> None:
    delayed = DelayedJobs(lambda _job: True)
    delayed.push(60.0, [a_job(A, offset) for offset in range(3)])
    assert partitions_to_pause(a_ledger(3, 3), delayed, Bounds(4, 1000, 4), halted=False) == {A}
    assert partitions_to_pause(a_ledger(3, 0, size=10), delayed, Bounds(10, 30, 4), halted=False) == {A}

    delayed.push(30.0, [a_job(A, 3)])
    assert [job.work.ticket.offset for job in delayed.pop_due(60.0)] == [3, 0, 1, 2]
    assert (len(delayed), delayed.bytes, delayed.partitions) == (0, 0, frozenset())
    assert partitions_to_pause(a_ledger(3, 3), delayed, Bounds(4, 1000, 4), halted=False) == {A, B}


def test_what_is_not_due_is_forgotten_with_its_partition() -> None:
    delayed = DelayedJobs(lambda _job: True)
    delayed.push(60.0, [a_job(A, 0), a_job(B, 0)])
    delayed.drop([A])
    assert delayed.partitions == {B}
    assert [job.work.ticket for job in delayed.pop_due(60.0)] == [Ticket(B, 1, 0)]


def test_the_time_that_an_event_waited_is_not_in_its_timings() -> None:
    delayed = DelayedJobs(lambda _job: True)
    delayed.push(3600.0, [a_job(A, 0)])
    (job,) = delayed.pop_due(3600.5)
    assert job.timings(3601.0)["total_ms"] == 500.0
