"""An event that waits for its image moves out of the way of others, and comes back with what was tried before."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.intake.member_bench import IN, QUICK, Bench, FakeEngine, FakeLog, FakeStore, event, http, records
from tests.unit.intake.pictures import png
from worker.images.errors import TransientFetchError
from worker.intake import crash_guard
from worker.intake.crash_markers import FileMarkers, Marker, MarkerStore
from worker.intake.deferral import Deferral, read_deferral
from worker.intake.ledger import Ticket
from worker.intake.log import Output, Partition, Poll, Record
from worker.intake.parse import parse
from worker.intake.retry_topics import RetryTopics
from worker.intake.work import RecordJob, RecordWork
from worker.settings import IntakeSettings, TopicSettings

TOPICS = TopicSettings().retry
RETRIES = [Partition(topic, 0) for topic in TOPICS]
DOWN = TransientFetchError("503 SlowDown")


def waiting(**changes: Any) -> IntakeSettings:
    """One that has no time to wait in its partition, and comes back soon."""
    return QUICK.model_copy(
        update={"max_attempts": 6, "retry_hold_seconds": 1e-9, "retry_delays_seconds": (0.05, 0.1, 0.2)} | changes
    )


class RetryLog(FakeLog):
    """A log whose retry topics can be read, one partition each."""

    def __init__(self, values: Sequence[Record]) -> None:
        super().__init__(values, partitions=(IN, *RETRIES))
        self.all = list(values)

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        super().commit(outputs, offsets)
        for output in outputs:
            if output.topic in TOPICS:
                partition = Partition(output.topic, 0)
                offset = sum(record.partition == partition for record in self.all)
                record = Record(partition, offset, output.value, output.key, output.headers)
                self.all.append(record)
                self.waiting.append(record)

    @property
    def moves(self) -> list[Record]:
        return [record for record in self.all if record.partition != IN]


@dataclass
class RetryBench(Bench):
    """A member on such a log; `restarted` is another one, in a new process, on the same log."""

    log: RetryLog

    def restarted(self, settings: IntakeSettings | None = None, **more: Any) -> "RetryBench":
        self.log.polls = [Poll(assigned=frozenset((IN, *RETRIES)))]
        self.log.paused = frozenset()
        committed = self.log.offsets
        self.log.waiting = [record for record in self.log.all if record.offset >= committed.get(record.partition, 0)]
        return RetryBench(self.log, self.store, settings=settings or self.settings, **more)


def bench_of(
    answers: Mapping[str, Any], settings: IntakeSettings | None = None, key: bytes | None = None
) -> RetryBench:
    log = RetryLog([record._replace(key=key) for record in records(*(event(name, http(name)) for name in answers))])
    store = FakeStore({f"http://images/{name}": answer for name, answer in answers.items()})
    return RetryBench(log, store, settings=settings or waiting())


def names(bench: Bench) -> list[str]:
    return [verdict["event_id"] for verdict in bench.log.verdicts]


def test_others_of_the_partition_go_on_while_an_event_waits_and_its_verdict_comes_later_once() -> None:
    bench = bench_of({"slow": [DOWN, DOWN, png(9)], "a": png(1), "b": png(2)})
    bench.run_until(lambda: len(bench.log.verdicts) == 3)
    assert names(bench) == ["a", "b", "slow"]
    assert [verdict["status"] for verdict in bench.log.verdicts] == ["scored"] * 3
    assert bench.log.verdicts[2]["source"] == {"topic": "images.in", "partition": 0, "offset": 0, "index": 0}
    assert bench.log.written("images.dead") == []


def test_an_event_passes_through_the_topics_in_order_and_stays_in_the_last() -> None:
    settings = waiting(max_attempts=50, retry_delays_seconds=(0.01, 0.01, 0.01))
    bench = bench_of({"slow": [DOWN] * 6 + [png(9)]}, settings)
    bench.run_until(lambda: len(bench.log.verdicts) == 1)
    moved = [record.partition.topic for record in bench.log.moves]
    assert moved == [TOPICS[0], TOPICS[1], TOPICS[2], TOPICS[2], TOPICS[2], TOPICS[2]]
    assert bench.log.verdicts[0]["status"] == "scored"


def test_attempts_count_over_moves_and_restarts() -> None:
    bench = bench_of({"never": DOWN})
    for _ in range(3):  # the process ends while the event waits, and another goes on
        moves = len(bench.log.moves)
        bench.run_until(partial(lambda log, before: len(log.moves) > before, bench.log, moves))
        bench = bench.restarted()
    bench.run_until(lambda: len(bench.log.verdicts) == 1)
    assert bench.store.fetched["http://images/never"] == 6
    assert bench.log.verdicts[0]["failure"]["attempts"] == 6
    assert bench.log.verdicts[0]["route"]["action"] == "review"
    (letter,) = bench.log.written("images.dead")
    assert letter["source"]["topic"] == "images.in"


def test_of_a_record_with_several_events_only_the_one_that_waits_moves() -> None:
    entry = (
        '{"eventVersion":"2.1","eventSource":"aws:s3","eventTime":"2026-01-01T00:00:00Z",'
        '"eventName":"ObjectCreated:Put","s3":{"bucket":{"name":"bucket"},"object":{"key":"%s","sequencer":"1"}}}'
    )
    value = '{"Records":[' + ",".join(entry % key for key in ("a", "slow", "c")) + "]}"
    log = RetryLog([Record(IN, 0, value.encode())])
    bench = Bench(log, FakeStore({"a": png(1), "slow": [DOWN, png(5)], "c": png(3)}), settings=waiting())
    bench.run_until(lambda: len(log.verdicts) == 3)
    assert [verdict["source"]["index"] for verdict in log.verdicts] == [0, 2, 1]
    assert len(log.moves) == 1


def test_nothing_moves_when_the_image_comes_within_the_time_that_an_event_may_hold_its_partition() -> None:
    bench = bench_of({"slow": [DOWN, DOWN, png(9)], "a": png(1)}, waiting(retry_hold_seconds=30.0))
    bench.run_until(lambda: len(bench.log.verdicts) == 2)
    assert names(bench) == ["slow", "a"]
    assert bench.log.moves == []


@pytest.mark.parametrize(("key", "order"), [(b"key", ["slow", "a"]), (None, ["a", "slow"])])
def test_where_the_order_of_keys_is_kept_an_event_with_a_key_holds_its_partition(
    key: bytes | None, order: list[str]
) -> None:
    answers = {"slow": [DOWN, DOWN, png(9)], "a": png(1)}
    bench = bench_of(answers, waiting(retry_keeps_key_order=True), key)
    bench.run_until(lambda: len(bench.log.verdicts) == 2)
    assert names(bench) == order


def test_without_delays_events_wait_in_their_partition() -> None:
    bench = bench_of({"slow": [DOWN, DOWN, png(9)], "a": png(1)}, waiting(retry_delays_seconds=()))
    bench.run_until(lambda: len(bench.log.verdicts) == 2)
    assert names(bench) == ["slow", "a"]


def test_while_the_engine_is_down_nothing_moves() -> None:
    def dead(_reds: np.ndarray[Any, Any]) -> None:
        raise RuntimeError("engine down")

    bench = bench_of({"a": png(1), "slow": DOWN}, waiting(retry_base_seconds=0.2, retry_max_seconds=0.4))
    bench.engine = FakeEngine(before=dead)
    bench.__post_init__()
    ends = time.monotonic() + 1.5
    bench.member.run(lambda: time.monotonic() > ends)
    assert bench.log.moves == []
    assert bench.log.verdicts == []


def test_an_event_that_is_not_due_holds_up_neither_other_partitions_nor_a_rebalance() -> None:
    bench = bench_of({"slow": DOWN, **{str(i): png(i) for i in range(20)}}, waiting(retry_delays_seconds=(60.0,)))
    bench.run_until(lambda: len(bench.log.verdicts) == 20)
    bench = bench.restarted(waiting(retry_delays_seconds=(60.0,), rebalance_seconds=15.0))
    revoked_at: list[float] = []

    def is_released() -> bool:
        if not revoked_at and RETRIES[0] in bench.log.paused:
            bench.log.polls.append(Poll(revoked=frozenset([RETRIES[0]])))
            revoked_at.append(time.monotonic())
        return RETRIES[0] in bench.log.released

    bench.run_until(is_released)
    assert time.monotonic() - revoked_at[0] < 10.0
    assert bench.log.offsets.get(RETRIES[0]) is None


def test_a_clock_that_was_far_ahead_delays_no_event_for_longer_than_the_longest_delay() -> None:
    bench = bench_of({"slow": [DOWN, png(9)]})
    bench.wall_clock = lambda: time.time() + 365 * 24 * 3600
    bench.__post_init__()
    bench.run_until(lambda: bool(bench.log.moves))
    again = bench.restarted()
    again.run_until(lambda: len(again.log.verdicts) == 1, seconds=10.0)


def a_job(record: Record, deferral: Deferral | None) -> RecordJob:
    (moved,) = parse(record).events
    return RecordJob(moved, 0.0, RecordWork(record, Ticket(record.partition, 1, record.offset), [()], 1, deferral), 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.floats(0.0, 5000.0)), min_size=1, max_size=8),
    st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=3).map(sorted),
    st.floats(0.0, 1e6),
)
def test_however_often_an_event_moves_its_counts_add_up_and_its_first_place_stays(
    stays: list[tuple[int, int, float]], delays: list[float], started: float
) -> None:
    """Each stay is in a process of its own, whose monotonic clock begins anywhere."""
    policy = RetryTopics(
        TOPICS, QUICK.model_copy(update={"retry_delays_seconds": tuple(delays)}), max_event_bytes=10**6
    )
    record = Record(Partition("images.in", 2), 41, event("e", http("e")), b"k", (), 1_700_000_000_000)
    wall, deferral, attempts, probes, first_failed = 1_700_000_100.0, None, 0, 0, None
    for count, (failed, probed, seconds) in enumerate(stays, 1):
        job, now = a_job(record, deferral), started + count
        if deferral is not None:
            policy.restore(job, deferral, now, wall)
            assert (job.attempts, job.probes) == (attempts, probes)
            if first_failed is not None and job.first_failed_at is not None:
                assert job.first_failed_at == pytest.approx(now - (wall - first_failed), abs=0.01 * count)
        job.attempts, job.probes = job.attempts + failed, job.probes + probed
        attempts, probes = job.attempts, job.probes
        if failed and first_failed is None:
            first_failed, job.first_failed_at = wall, now
        now, wall = now + seconds, wall + seconds
        output = policy.output(job, "down", now, wall)
        assert output.topic == TOPICS[min(count, len(delays)) - 1]
        record = Record(Partition(output.topic, 1), count, output.value, output.key, output.headers, int(wall * 1000))
        deferral = read_deferral(record)
        assert deferral is not None
        assert deferral.source.model_dump() == {"topic": "images.in", "partition": 2, "offset": 41, "index": 0}
        assert deferral.first_seen_ms == 1_700_000_000_000
        assert record.key == b"k"
        delay = delays[min(count, len(delays)) - 1]
        assert policy.wait_seconds(deferral, wall) == pytest.approx(delay, abs=0.01)
        wall += delay
        assert policy.wait_seconds(deferral, wall + 0.01) <= 0


def test_delays_that_become_shorter_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be shorter"):
        IntakeSettings(retry_delays_seconds=(600.0, 60.0))


class MortalMarkers:
    """Markers of a process that can die: nothing is written then any more."""

    def __init__(self, kept: MarkerStore) -> None:
        self._kept = kept
        self.dead = False

    def read(self, partition: Partition) -> Marker | None:
        return self._kept.read(partition)

    def write(self, partition: Partition, marker: Marker) -> None:
        if not self.dead:
            self._kept.write(partition, marker)

    def remove(self, partition: Partition) -> None:
        if not self.dead:
            self._kept.remove(partition)


@pytest.mark.parametrize("dies", [True, False], ids=["killed", "ended in order"])
def test_attempts_in_the_partition_count_over_restarts(
    dies: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crash_guard, "NOTE_SECONDS", 0.0)
    settings = waiting(retry_hold_seconds=60.0, retry_base_seconds=0.05, retry_max_seconds=0.1)
    bench = bench_of({"never": DOWN, "a": png(1)}, settings)
    fetched = bench.store.fetched
    ended_with = 0
    for process in range(3):
        markers = MortalMarkers(FileMarkers(tmp_path))
        bench = bench.restarted(process=f"process-{process}", markers=markers)
        bench.run_until(partial(lambda before: fetched["http://images/never"] > before, ended_with))
        markers.dead = dies
        ended_with = fetched["http://images/never"]
    bench = bench.restarted(process="last", markers=FileMarkers(tmp_path))
    bench.run_until(lambda: len(bench.log.verdicts) == 2)
    assert bench.log.verdicts[0]["failure"]["attempts"] == 6
    assert 6 <= fetched["http://images/never"] <= 6 + 3, "what was under way at a death is not counted"
