"""How many events came and how many wait, on the embedded log; a broker answers the same questions."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.unit.clock import Clock
from worker.intake.embedded import embedded_log
from worker.intake.log import Output, Partition
from worker.intake.packs import pack
from worker.intake.sqlite_log import SqliteLog
from worker.intake.sqlite_topics import SqliteTopics
from worker.review.intake_numbers import HOUR, IntakeNumbers, from_embedded
from worker.settings import Settings

NOON = 1_800_000_000 // HOUR * HOUR
HOURS = [NOON - 2 * HOUR, NOON - HOUR, NOON]


@pytest.fixture
def clock() -> Clock:
    return Clock(float(NOON))


@pytest.fixture
def topics(tmp_path: Path, clock: Clock) -> Iterator[SqliteTopics]:
    with closing(SqliteTopics(embedded_log(tmp_path), clock=clock)) as topics:
        topics.create({"images.in": 2})
        yield topics


def add(topics: SqliteTopics, clock: Clock, at: float, count: int) -> None:
    clock.now = at
    topics.append([Output("images.in", b"{}") for _ in range(count)])


@contextmanager
def worker(data: Path, clock: Clock, *, retain: int = 1000) -> Iterator[SqliteLog]:
    log = SqliteLog(embedded_log(data), topics=["images.in"], group_id="sluice", retain_records=retain, clock=clock)
    yield log
    log.close()


def finish(log: SqliteLog, count: int) -> None:
    """Takes so many records, and commits them."""
    taken = 0
    while taken < count:
        records = log.poll(0.0).records
        taken += len(records)
        if records:
            log.commit([], {record.partition: record.offset + 1 for record in records})


def test_events_are_counted_by_the_hour_in_which_they_came(tmp_path: Path, topics: SqliteTopics, clock: Clock) -> None:
    add(topics, clock, NOON - 2 * HOUR + 5, 3)
    add(topics, clock, NOON - 1, 4)
    add(topics, clock, NOON, 5)
    assert from_embedded(Settings(), tmp_path).numbers(HOURS) == IntakeNumbers((3, 4, 5), behind=12)


def test_what_workers_have_finished_is_not_behind(tmp_path: Path, topics: SqliteTopics, clock: Clock) -> None:
    intake = from_embedded(Settings(), tmp_path)
    add(topics, clock, NOON, 6)
    with worker(tmp_path, clock) as log:
        finish(log, 6)
    assert intake.numbers(HOURS).behind == 0
    add(topics, clock, NOON + 1, 2)
    assert intake.numbers(HOURS) == IntakeNumbers((0, 0, 8), behind=2)


def test_an_hour_that_was_asked_for_before_goes_on_counting(tmp_path: Path, topics: SqliteTopics, clock: Clock) -> None:
    intake = from_embedded(Settings(), tmp_path)
    assert intake.numbers(HOURS).events == (0, 0, 0)
    add(topics, clock, NOON + 1, 3)
    assert intake.numbers(HOURS).events == (0, 0, 3)
    add(topics, clock, NOON + 2, 4)
    assert intake.numbers(HOURS).events == (0, 0, 7)
    assert intake.numbers([*HOURS, NOON + HOUR]).events == (0, 0, 7, 0)


def test_an_hour_whose_records_are_gone_is_unknown_rather_than_empty(
    tmp_path: Path, topics: SqliteTopics, clock: Clock
) -> None:
    add(topics, clock, NOON - 2 * HOUR + 5, 10)
    add(topics, clock, NOON + 5, 10)
    with worker(tmp_path, clock, retain=2) as log:
        finish(log, 20)
    assert from_embedded(Settings(), tmp_path).numbers(HOURS).events[0] is None


def test_events_that_wait_in_the_retry_and_surplus_topics_are_behind_each_of_a_pack_too(
    tmp_path: Path, topics: SqliteTopics, clock: Clock
) -> None:
    intake = from_embedded(Settings(), tmp_path)
    names = Settings().kafka.topics
    add(topics, clock, NOON, 2)
    topics.create(dict.fromkeys(names.deferred, 1))
    topics.append([Output(names.retry_1, b"{}") for _ in range(3)])
    assert intake.numbers(HOURS).behind == 5
    moved = pack([Output(names.surplus, b"{}", b"k")] * 1000, names.surplus_topics).outputs
    assert len(moved) == 10
    topics.append(moved)
    assert intake.numbers(HOURS) == IntakeNumbers((0, 0, 2), behind=1005)
    topics.start_group("sluice", {Partition(names.surplus, 0): 1})
    assert intake.numbers(HOURS).behind == 905


def test_events_that_come_to_the_priority_topic_are_counted(tmp_path: Path, topics: SqliteTopics, clock: Clock) -> None:
    settings = Settings.model_validate({"kafka": {"topics": {"priority": "images.priority"}}})
    topics.create({"images.priority": 1})
    add(topics, clock, NOON, 2)
    topics.append([Output("images.priority", b"{}")])
    assert from_embedded(settings, tmp_path).numbers(HOURS) == IntakeNumbers((0, 0, 3), behind=3)
