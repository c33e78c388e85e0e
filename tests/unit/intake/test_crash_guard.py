"""Markers of what was under way: kept by two stores alike, and read by whoever holds the partition next."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis

from schemas import ImageEvent, InlineReference
from tests.unit.clock import Clock
from worker.cache.client import connect_embedded
from worker.intake.crash_guard import CALM_SECONDS, CrashGuard
from worker.intake.crash_markers import EventPlace, FileMarkers, Marker, MarkerStore, RedisMarkers
from worker.intake.ledger import Ticket
from worker.intake.log import Partition, Record
from worker.intake.work import RecordJob, RecordWork

A, B = Partition("images.in", 0), Partition("images.in", 1)


def job(offset: int, partition: Partition = A) -> RecordJob:
    event = ImageEvent(id=str(offset), occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=InlineReference(bytes=b"x"))
    work = RecordWork(Record(partition, offset, b""), Ticket(partition, 0, offset), [()], 1)
    return RecordJob(event, 0.0, work, 0)


@pytest.fixture(params=["redis", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> MarkerStore:
    return RedisMarkers(connect_embedded(), "group") if request.param == "redis" else FileMarkers(tmp_path / "markers")


def test_a_store_keeps_a_marker_for_each_partition(store: MarkerStore) -> None:
    marker = Marker(holder="p", deaths=2, in_flight=(EventPlace(7, 0), EventPlace(9, 3)), alone=EventPlace(9, 3))
    assert store.read(A) is None
    store.write(A, marker)
    assert store.read(A) == marker
    assert store.read(B) is None
    store.remove(A)
    store.remove(A)
    assert store.read(A) is None


def test_a_marker_that_cannot_be_read_or_kept_stops_nothing(tmp_path: Path) -> None:
    class Away(redis.Redis):
        def execute_command(self, *_: object, **__: object) -> None:
            raise redis.ConnectionError("away")

    folder = tmp_path / "a file, no folder"
    folder.write_text("x")
    for store in (RedisMarkers(Away(), "g"), FileMarkers(folder)):
        guard = CrashGuard(store, "p", Clock())
        guard.assigned([A])
        guard.started([job(1)], ())
        guard.released_all()
    damaged = FileMarkers(tmp_path)
    (tmp_path / "images.in-0.json").write_text('{"deaths": "many"}')
    assert damaged.read(A) is None


def after_deaths(store: MarkerStore, deaths: int, clock: Callable[[], float], *offsets: int) -> CrashGuard:
    """The guard of a process that follows so many that died, each with these offsets in flight."""
    for number in range(deaths):
        dying = CrashGuard(store, f"process-{number}", clock)
        dying.assigned([A])
        for offset in offsets:
            dying.started([job(offset)], ())
    guard = CrashGuard(store, "the next", clock)
    guard.assigned([A])
    return guard


def test_only_after_two_deaths_is_what_was_in_flight_judged_alone(store: MarkerStore) -> None:
    clock = Clock()
    assert not after_deaths(store, 1, clock, 5).must_be_alone(job(5))
    store.remove(A)
    guard = after_deaths(store, 2, clock, 5, 6)
    assert [guard.must_be_alone(job(offset)) for offset in (4, 5, 6)] == [False, True, True]
    assert not guard.must_be_alone(job(5, B))
    assert guard.failure_of(job(5)) is None


def dies_alone_with(offset: int, store: MarkerStore, process: str) -> CrashGuard:
    guard = CrashGuard(store, process, Clock())
    guard.assigned([A])
    suspect = job(offset)
    assert guard.failure_of(suspect) is None
    asked = {other: guard.must_be_alone(job(other)) for other in (5, 6)}  # in the order of the partition
    suspect.is_alone = asked[offset]
    guard.started([suspect], ())
    return guard


def test_what_was_alone_at_two_deaths_is_not_tried_again_however_often_the_process_dies(store: MarkerStore) -> None:
    after_deaths(store, 2, Clock(), 5, 6).lost([A])
    dies_alone_with(6, store, "third")
    dies_alone_with(6, store, "fourth")
    for process in ("fifth", "sixth"):
        following = CrashGuard(store, process, Clock())
        following.assigned([A])
        assert following.failure_of(job(6)) is not None
        assert following.failure_of(job(5)) is None
        assert following.must_be_alone(job(5)), "it may be another that kills"


def test_events_that_were_committed_are_no_suspects_any_more(store: MarkerStore) -> None:
    guard = after_deaths(store, 2, Clock(), 5, 6, 7)
    assert guard.must_be_alone(job(6)), "the first that is read: what lies before was committed"
    guard.started([job(6)], ())
    found = store.read(A)
    assert found is not None
    assert sorted(found.in_flight) == [EventPlace(6, 0), EventPlace(7, 0)]


def test_one_death_blames_nothing_since_a_process_may_be_killed_from_outside(store: MarkerStore) -> None:
    after_deaths(store, 2, Clock(), 5, 6).lost([A])
    for process, offset in (("third", 5), ("fourth", 6)):
        dies_alone_with(offset, store, process)
    following = CrashGuard(store, "fifth", Clock())
    following.assigned([A])
    assert following.failure_of(job(5)) is None
    assert following.failure_of(job(6)) is None


def test_what_ended_well_alone_is_no_suspect_any_more(store: MarkerStore) -> None:
    guard = after_deaths(store, 2, Clock(), 5)
    suspect = job(5)
    suspect.is_alone = True
    guard.started([suspect], ())
    guard.ended(suspect)
    guard.started([job(8)], ())
    following = CrashGuard(store, "another", Clock())
    following.assigned([A])
    assert following.failure_of(job(5)) is None


def test_a_partition_that_is_given_up_in_order_counts_no_death(store: MarkerStore) -> None:
    guard = CrashGuard(store, "first", Clock())
    guard.assigned([A, B])
    guard.released([A])
    assert store.read(A) is None
    guard.released_all()
    assert store.read(B) is None


def test_the_next_member_of_the_same_process_counts_no_death(store: MarkerStore) -> None:
    clock = Clock()
    for _ in range(5):
        CrashGuard(store, "the same", clock).assigned([A])
    found = store.read(A)
    assert found is not None
    assert found.deaths == 0


def test_deaths_are_remembered_when_the_partition_moves_in_order(store: MarkerStore) -> None:
    clock = Clock()
    after_deaths(store, 2, clock, 5).released([A])
    guard = CrashGuard(store, "another member", clock)
    guard.assigned([A])
    assert guard.must_be_alone(job(5))


def test_a_process_that_has_lived_for_a_while_is_in_no_crash_loop(store: MarkerStore) -> None:
    clock = Clock()
    guard = after_deaths(store, 3, clock, 5)
    clock.now = CALM_SECONDS
    guard.started([job(100)], ())
    assert store.read(A) == Marker(holder="the next")
    assert not guard.must_be_alone(job(5))


def test_while_deaths_are_watched_the_store_is_written_once_for_many_events() -> None:
    class Counting(RedisMarkers):
        writes = 0

        def write(self, partition: Partition, marker: Marker) -> None:
            self.writes += 1
            super().write(partition, marker)

    store = Counting(connect_embedded(), "group")
    guard = after_deaths(store, 1, Clock(), 5)
    before = store.writes
    events = [job(offset) for offset in range(100)]
    for i, each in enumerate(events):
        guard.started([each], events[i + 1 : i + 50])
        guard.ended(each)
    assert store.writes - before <= 4
    following = CrashGuard(store, "another", Clock())
    following.assigned([A])
    assert following.must_be_alone(job(99)), "what was under way is always noted"


def test_a_store_is_not_written_for_each_event_while_nobody_died(store: MarkerStore) -> None:
    guard = CrashGuard(store, "first", Clock())
    guard.assigned([A])
    before = store.read(A)
    guard.started([job(1)], ())
    assert store.read(A) == before == Marker(holder="first")
