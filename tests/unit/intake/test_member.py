"""The intake loop on stand-ins: every event ends in one verdict, whatever fails on the way."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas import FailureReason
from tests.unit.intake.member_bench import (
    IN,
    QUICK,
    Bench,
    FakeEngine,
    FakeLog,
    FakeStore,
    event,
    http,
    http_bench,
    records,
    s3,
)
from tests.unit.intake.pictures import png
from worker.images.errors import ImageError, TransientFetchError
from worker.intake.crash_markers import FileMarkers, Marker
from worker.intake.intake import Intake
from worker.intake.log import CommitFailed, Fenced, Gap, Lag, LogError, Partition, Poll, Record
from worker.judging.stores import Stores
from worker.scoring.engine import BatchFailed, EngineLost


def test_each_event_gets_one_verdict_in_the_order_of_its_partition() -> None:
    bench = http_bench(50)
    bench.run_to(50)
    assert [v["event_id"] for v in bench.log.verdicts] == [str(i) for i in range(50)]
    assert [v["source"]["offset"] for v in bench.log.verdicts] == list(range(50))
    assert bench.log.verdicts[10]["scores"]["quality"] == pytest.approx(1 + 4 * 50 / 255)
    assert max(bench.engine.batches) > 1
    assert bench.log.closed


def test_a_malformed_record_becomes_a_dead_letter_and_a_review_item_and_the_stream_goes_on() -> None:
    bench = Bench(FakeLog(records(b"{not json", event("1", http("1")), None)), FakeStore({"http://images/1": png(9)}))
    bench.run_to(3)
    statuses = {v["event_id"]: v["status"] for v in bench.log.verdicts}
    assert statuses == {"record:images.in/0/0": "failed", "1": "scored", "record:images.in/0/2": "failed"}
    letter = bench.log.written("images.dead")[0]
    assert letter["failure"]["reason"] == "malformed_event"
    assert letter["payload"] == "e25vdCBqc29u"
    assert {item["event_id"] for item in bench.log.written("images.review")} >= {"record:images.in/0/0"}


def test_an_event_too_large_to_pass_on_is_a_dead_letter() -> None:
    bench = Bench(FakeLog(records(b"x" * 100_001)))
    bench.run_to(1)
    assert bench.log.written("images.dead")[0]["failure"]["reason"] == "event_too_large"


def test_a_transient_fault_is_tried_again_and_leaves_no_trace() -> None:
    bench = http_bench(3, i1=[TransientFetchError("503"), TransientFetchError("503"), png(5)])
    bench.run_to(3)
    assert [v["status"] for v in bench.log.verdicts] == ["scored"] * 3
    assert bench.store.fetched["http://images/1"] == 3
    assert bench.log.written("images.dead") == []


def test_a_fault_that_never_ends_is_given_up_with_the_number_of_attempts() -> None:
    bench = http_bench(3, i1=TransientFetchError("no answer"))
    bench.run_to(3)
    failed = bench.log.verdicts[1]
    assert failed["failure"]["reason"] == "fetch_failed"
    assert failed["failure"]["attempts"] == QUICK.max_attempts
    assert failed["route"]["action"] == "review"


def test_a_permanent_fault_is_given_up_at_once() -> None:
    bench = http_bench(2, i0=ImageError(FailureReason.IMAGE_NOT_FOUND, "no such image"))
    bench.run_to(2)
    assert bench.log.verdicts[0]["failure"] == {
        "reason": "image_not_found",
        "message": "no such image",
        "attempts": 1,
    }


def test_an_image_that_is_none_is_a_dead_letter() -> None:
    bench = http_bench(2, i0=b"<html>")
    bench.run_to(2)
    assert bench.log.verdicts[0]["failure"]["reason"] == "unsupported_format"


def test_a_fault_of_ours_in_preparation_fails_closed() -> None:
    bench = http_bench(2, i0=RuntimeError("a bug"))
    bench.run_to(2)
    assert bench.log.verdicts[0]["failure"]["reason"] == "internal_error"
    assert bench.log.verdicts[0]["route"]["action"] == "review"


def test_an_image_that_kills_the_engine_harms_no_other() -> None:
    bench = http_bench(12)

    def choke(reds: np.ndarray[Any, Any]) -> None:
        if 35 in reds:
            raise BatchFailed("choked")

    bench.engine.before = choke
    bench.run_to(12)
    failed = [v["event_id"] for v in bench.log.verdicts if v["status"] == "failed"]
    assert failed == ["7"]
    assert bench.log.written("images.dead")[0]["failure"]["reason"] == "engine_failed"


def test_an_engine_that_is_down_costs_nobody_a_verdict() -> None:
    bench = http_bench(12)
    back_at = time.monotonic() + 2.5
    paused_meanwhile: list[bool] = []

    def down(reds: np.ndarray[Any, Any]) -> None:
        paused_meanwhile.append(IN in bench.log.paused)
        if time.monotonic() < back_at:
            raise BatchFailed("out of memory")

    bench.engine.before = down
    bench.run_to(12)
    assert [v["status"] for v in bench.log.verdicts] == ["scored"] * 12
    assert any(paused_meanwhile)


def test_an_engine_that_stays_down_makes_the_worker_unhealthy_and_its_partitions_count_as_stalled() -> None:
    bench = http_bench(3, settings=QUICK.model_copy(update={"engine_outage_seconds": 0.2, "stall_seconds": 1.0}))
    told: list[str] = []

    def down(reds: np.ndarray[Any, Any]) -> None:
        if not any("is behind and has not moved" in problem for problem in told):
            raise BatchFailed("no answer")

    bench.engine.before = down

    def done() -> bool:
        told.extend(bench.member.health_problems())
        return bench.log.offsets.get(IN) == 3

    bench.run_until(done)
    assert any(
        problem.startswith("the engine has answered no batch for") and "no answer" in problem for problem in told
    )
    assert not any(problem.startswith("the engine") for problem in bench.member.health_problems())
    assert [v["status"] for v in bench.log.verdicts] == ["scored"] * 3


def test_an_engine_that_is_lost_ends_the_member_after_what_was_finished_is_committed() -> None:
    store = FakeStore({f"http://images/{i}": png(red=i * 5) for i in range(40)})
    log = FakeLog(records(b"{not json", *(event(str(i), http(str(i))) for i in range(40))))
    bench = Bench(log, store)

    def lost(reds: np.ndarray[Any, Any]) -> None:
        if len(bench.log.verdicts) + sum(bench.engine.batches) > 12:
            raise EngineLost("the GPU is gone")

    bench.engine.before = lost
    with pytest.raises(EngineLost, match="the GPU is gone"):
        bench.run_until(lambda: False)
    assert log.closed, "the member has left the group"
    committed = log.offsets[IN]
    assert 1 <= committed < 41
    assert len(log.verdicts) == committed, "what was finished is committed, with a verdict for each record"
    assert log.written("images.dead")[0]["failure"]["reason"] == "malformed_event"
    assert len(log.written("images.dead")) == 1, "no image is to blame"
    assert "the engine is lost to this process: the GPU is gone" in bench.member.health_problems()


def test_an_intake_whose_engine_is_lost_starts_no_other_member() -> None:
    bench = http_bench(4)
    opened: list[FakeLog] = []

    def open_log() -> FakeLog:
        opened.append(bench.log)
        return bench.log

    def lost(reds: np.ndarray[Any, Any]) -> None:
        raise EngineLost("the GPU is gone")

    bench.engine.before = lost
    with pytest.raises(EngineLost):
        Intake(open_log, bench.parts).run(threading.Event())
    assert len(opened) == 1


@pytest.mark.parametrize(("judges", "delays"), [(True, [1, 1, 1, 1]), (False, [1, 2, 3, 4])])
def test_only_members_that_judged_nothing_make_the_next_one_wait_longer(judges: bool, delays: list[int]) -> None:
    """A broker that is restarted now and then costs the same pause each time."""

    class Broken(FakeLog):
        idle = 0

        def poll(self, timeout_seconds: float) -> Poll:
            self.idle += self.commits > 0 or not (judges or self.polls)
            if self.idle > 20:  # the member has heard of its commit
                raise LogError("the broker went away")
            return super().poll(timeout_seconds)

    bench = http_bench(1, QUICK.model_copy(update={"retry_max_seconds": 20.0}))
    stop = threading.Event()
    failures: list[int] = []

    def delay(count: int, rng: object) -> float:
        failures.append(count)
        if len(failures) == len(delays):
            stop.set()
        return 0.0

    intake = Intake(lambda: Broken(records(event("0", http("0"))) if judges else []), bench.parts)
    intake._patience = SimpleNamespace(delay=delay)  # type: ignore[assignment]
    intake.run(stop)
    assert failures == delays


def test_a_store_that_is_down_burns_no_attempts() -> None:
    count = 40
    log = FakeLog(records(*(event(str(i), s3(str(i))) for i in range(count))))
    back_at = time.monotonic() + 2.5

    def answer() -> Any:
        return TransientFetchError("503 SlowDown") if time.monotonic() < back_at else png(3)

    bench = Bench(
        log, FakeStore({str(i): answer for i in range(count)}), settings=QUICK.model_copy(update={"max_attempts": 4})
    )
    bench.run_to(count)
    given_up = [v for v in log.verdicts if v["status"] == "failed"]
    assert len(given_up) < count / 2, "only those that failed before the breaker opened may have been given up"
    assert sum(bench.store.fetched.values()) < count * 4, "while the breaker is open, single probes go out"


def test_objects_that_never_come_do_not_hold_up_the_others_for_ever() -> None:
    log = FakeLog(records(*(event(str(i), s3(str(i))) for i in range(24))))
    answers: dict[str, Any] = {str(i): TransientFetchError("it took too long") for i in range(23)}
    patient = QUICK.model_copy(update={"max_attempts": 1000, "outage_seconds": 1.0})
    bench = Bench(log, FakeStore({**answers, "23": png(3)}), settings=patient)
    bench.member._pipeline._fetches._stores = Stores(pause_seconds=0.01)

    bench.run_to(24)

    assert Counter(v["status"] for v in log.verdicts) == {"failed": 23, "scored": 1}
    assert {letter["failure"]["reason"] for letter in log.written("images.dead")} == {"fetch_failed"}


def test_one_image_in_many_events_is_scored_once() -> None:
    bench = http_bench(8)
    for i in range(8):
        bench.store.answers[f"http://images/{i}"] = png(red=77)
    bench.run_to(8)
    assert sum(bench.engine.batches) == 1
    assert Counter(v["cached"] for v in bench.log.verdicts) == {True: 7, False: 1}
    assert len({v["verdict_id"] for v in bench.log.verdicts}) == 8


@pytest.mark.parametrize("reads_prompts", [True, False])
def test_one_image_with_two_prompts_has_two_scores_where_the_model_judges_prompts(reads_prompts: bool) -> None:
    prompts = ("cat", None, "a cat", "cat", "")
    log = FakeLog(records(*(event(str(i), http("a"), prompt=prompt) for i, prompt in enumerate(prompts))))
    bench = Bench(log, FakeStore({"http://images/a": png(9)}), reads_prompts=reads_prompts)
    bench.run_to(5)

    found = [verdict["scores"]["correspondence"] for verdict in bench.log.verdicts]
    assert found == ([3, None, 5, 3, None] if reads_prompts else [None] * 5)
    assert sum(bench.engine.batches) == (3 if reads_prompts else 1)


def test_events_that_waited_for_a_broken_image_each_get_their_own_failure() -> None:
    bench = http_bench(4)
    for i in range(4):
        bench.store.answers[f"http://images/{i}"] = b"\x89PNG\r\n\x1a\n broken"
    bench.run_to(4)
    assert [v["status"] for v in bench.log.verdicts] == ["failed"] * 4


def one_object_again(
    red: int, between: Callable[[Bench], object] = lambda bench: None, parameters: str | None = None
) -> Bench:
    """Four events of one object, three of them once the first is judged; `between` happens before they come."""
    later = [event(str(i), s3("same", etag="e1")) for i in range(1, 4)]
    log = FakeLog(records(event("0", s3("same", etag="e1"))))
    bench = Bench(log, FakeStore({"same": png(red, parameters=parameters)}))

    def feed() -> bool:
        if len(log.verdicts) == 1 and not log.waiting and later:
            time.sleep(0.05)
            between(bench)
            log.waiting.extend(Record(IN, i + 1, value) for i, value in enumerate(later))
            later.clear()
        return log.offsets.get(IN) == 4

    bench.run_until(feed)
    assert [v["event_id"] for v in log.verdicts] == ["0", "1", "2", "3"]
    assert len({json.dumps(v["scores"]) for v in log.verdicts}) == 1
    return bench


BAD, GOOD = 20, 230


@pytest.mark.parametrize("red", [BAD, GOOD])
def test_an_object_scored_before_is_not_fetched_again(red: int) -> None:
    bench = one_object_again(red)
    assert bench.store.fetched["same"] == 1
    assert [v["cached"] for v in bench.log.verdicts] == [False, True, True, True]


@pytest.mark.parametrize("red", [BAD, GOOD])
def test_what_a_file_says_of_its_origin_is_in_every_verdict_and_item_of_it(red: int) -> None:
    bench = one_object_again(red, parameters="a cat\nSteps: 20, Sampler: Euler a, Seed: 42, Model: dream")
    said = {
        "found": True, "c2pa": "absent", "generator": "a1111", "model": "dream", "sampler": "Euler a", "steps": 20,
        "seed": "42",
    }  # fmt: skip
    assert [v["cached"] for v in bench.log.verdicts] == [False, True, True, True]
    assert [v["provenance"] for v in bench.log.verdicts] == [said] * 4
    assert [item["provenance"] for item in bench.log.written("images.review")] == [said] * (4 if red == BAD else 0)
    assert one_object_again(red).log.verdicts[3]["provenance"] == {"found": False, "c2pa": "absent"}


def test_review_items_of_an_object_scored_before_carry_its_features() -> None:
    items = one_object_again(BAD).log.written("images.review")
    assert [item["event_id"] for item in items] == ["0", "1", "2", "3"]
    assert len({json.dumps(item["features"]) for item in items}) == 1
    assert items[0]["features"]["coarse"]


def forget_features(bench: Bench) -> None:
    assert bench.redis.delete(*bench.redis.keys("sluice:features:*")) == 1


def test_an_object_whose_features_were_evicted_is_scored_again_where_people_will_see_it() -> None:
    bench = one_object_again(BAD, forget_features)
    assert bench.store.fetched["same"] >= 2
    assert all(item["features"]["coarse"] for item in bench.log.written("images.review"))

    bench = one_object_again(GOOD, forget_features)
    assert bench.store.fetched["same"] == 1


def test_a_promised_hash_that_is_wrong_is_refused_although_the_object_is_known() -> None:
    log = FakeLog(records(event("0", s3("k", etag="e1"))))
    bench = Bench(log, FakeStore({"k": png(50)}))
    later = [Record(IN, 1, event("1", s3("k", etag="e1"), sha256="0" * 64))]

    def feed() -> bool:
        if log.offsets.get(IN) == 1 and later:
            log.waiting.append(later.pop())
        return log.offsets.get(IN) == 2

    bench.run_until(feed)
    assert log.verdicts[1]["failure"]["reason"] == "hash_mismatch"


def test_a_commit_that_failed_is_repeated_without_scoring_again() -> None:
    bench = http_bench(6)
    bench.log.commit_errors = [CommitFailed("coordinator moved"), CommitFailed("again")]
    bench.run_to(6)
    assert sum(bench.engine.batches) == 6
    assert [v["event_id"] for v in bench.log.verdicts] == [str(i) for i in range(6)]
    assert bench.metrics.commit_failures._value.get() == 2


def test_a_member_that_was_replaced_ends_and_leaves_the_log() -> None:
    bench = http_bench(2)
    bench.log.commit_errors = [Fenced("somebody else")]
    with pytest.raises(Fenced, match="somebody else"):
        bench.run_to(2)
    assert bench.log.closed
    assert bench.log.verdicts == []


def test_a_commit_that_never_returns_ends_the_member() -> None:
    bench = http_bench(1)
    bench.member._commits._settings = QUICK.model_copy(update={"commit_patience_seconds": 0.2})
    forever = threading.Event()
    bench.log.commit = lambda outputs, offsets: (forever.wait(5), None)[1]  # type: ignore[method-assign]
    with pytest.raises(Fenced, match="has not returned"):
        bench.run_to(1)
    forever.set()


def test_revoked_partitions_are_released_once_their_work_is_committed() -> None:
    bench = http_bench(10)
    log = bench.log
    log.polls.append(Poll(log.waiting, revoked=frozenset({IN})))
    log.waiting = []
    bench.run_until(lambda: IN in log.released)
    assert len(log.verdicts) == 10
    assert log.offsets == {IN: 10}


def test_revoked_partitions_do_not_wait_for_a_slow_image_beyond_the_deadline() -> None:
    hang = threading.Event()

    def slow() -> bytes:
        hang.wait(10)
        return png(1)

    bench = http_bench(4, i2=slow)
    log = bench.log
    log.polls.append(Poll(log.waiting, revoked=frozenset({IN})))
    log.waiting = []
    started = time.monotonic()
    bench.run_until(lambda: IN in log.released)
    hang.set()
    assert time.monotonic() - started < 5
    assert log.offsets == {IN: 2}, "what was finished before the slow one is committed, the rest is the next owner's"
    assert len(log.verdicts) == 2


def test_lost_partitions_leave_nothing_behind() -> None:
    gate = threading.Event()
    bench = http_bench(4)
    bench.engine.before = lambda reds: (gate.wait(5), None)[1]
    log = bench.log
    log.polls.append(Poll(log.waiting))
    log.waiting = []
    log.polls.append(Poll())
    log.polls.append(Poll(lost=frozenset({IN})))
    bench.run_until(lambda: (gate.set() or log.polled > 200) if not log.polls else False)
    assert log.verdicts == []
    assert log.offsets == {}


def test_stopping_finishes_what_is_with_the_engine_and_gives_the_rest_back_at_once() -> None:
    told_to_stop, release = threading.Event(), threading.Event()
    bench = http_bench(100, settings=QUICK.model_copy(update={"drain_seconds": 60.0, "batches_in_flight": 1}))
    for i in range(4, 100):
        bench.store.answers[f"http://images/{i}"] = lambda: (release.wait(30), png(1))[1]

    def in_the_engine(reds: np.ndarray[Any, Any]) -> None:
        told_to_stop.set()
        time.sleep(0.3)

    bench.engine.before = in_the_engine
    started = time.monotonic()
    bench.run_until(told_to_stop.is_set)
    took = time.monotonic() - started
    release.set()
    assert took < 30, "what is only being fetched is not waited for"
    assert bench.log.offsets == {IN: len(bench.log.verdicts)}
    assert 0 < len(bench.log.verdicts) <= 4
    assert bench.log.closed


def test_buckets_that_are_down_or_refuse_all_hold_up_no_other_partition() -> None:
    down, refusing, fine = (Partition(IN.topic, number) for number in range(3))
    gone = ImageError(FailureReason.ACCESS_DENIED, "AccessDenied")
    waiting = [
        Record(partition, i, event(f"{partition.number}-{i}", {"kind": "s3", "bucket": bucket, "key": f"{bucket}{i}"}))
        for i in range(40)
        for partition, bucket in ((down, "down"), (refusing, "refusing"), (fine, "fine"))
    ]
    mended = threading.Event()

    def answer(error: Exception) -> Callable[[], Any]:
        return lambda: png(3) if mended.is_set() else error

    answers: dict[str, Any] = {}
    for i in range(40):
        answers |= {f"fine{i}": png(2), f"down{i}": answer(TransientFetchError("503")), f"refusing{i}": answer(gone)}
    log = FakeLog(waiting, partitions=(down, refusing, fine))
    bench = Bench(log, FakeStore(answers), settings=QUICK.model_copy(update={"max_attempts": 1000}))
    told: dict[str, tuple[str, ...]] = {}

    def done() -> bool:
        if not mended.is_set() and log.offsets.get(fine) == 40:
            problems, outages = bench.member.health_problems(), bench.member.store_outages()
            if problems and outages:
                told.update(problems=problems, outages=outages)
                assert down not in log.offsets
                assert refusing not in log.offsets
                mended.set()
        return log.offsets == {down: 40, refusing: 40, fine: 40}

    bench.run_until(done)
    assert [problem.partition(" for ")[0] for problem in told["problems"]] == ["s3://refusing has refused everything"]
    assert [outage.partition(" for ")[0] for outage in told["outages"]] == ["s3://down has not answered"]
    assert {v["status"] for v in log.verdicts} == {"scored"}
    assert log.written("images.dead") == []


def test_a_full_intake_pauses_but_goes_on_polling() -> None:
    gate = threading.Event()
    bench = http_bench(40)
    bench.member._bounds = type(bench.member._bounds)(records=8, bytes=10**9, records_per_partition=8)
    bench.engine.before = lambda reds: (gate.wait(5), None)[1]
    log = bench.log
    seen: list[int] = []

    def done() -> bool:
        if log.polled == 100:
            seen.append(len(log.waiting))
            gate.set()
        return log.offsets.get(IN) == 40

    bench.run_until(done)
    assert seen
    assert seen[0] >= 40 - 8 - 5, "no more than the bound and one poll are taken"


def test_a_record_of_several_events_is_finished_when_the_last_of_them_is() -> None:
    notification = {
        "Records": [
            {
                "eventVersion": "2.1",
                "eventSource": "aws:s3",
                "awsRegion": "",
                "eventTime": "2026-01-01T00:00:00.000Z",
                "eventName": "ObjectCreated:Put",
                "s3": {"bucket": {"name": "b"}, "object": {"key": key, "size": 1, "eTag": "e1", "sequencer": "1"}},
            }
            for key in ("x", "y", "gone")
        ]
    }
    store = FakeStore(
        {"x": png(1), "y": png(2), "gone": ImageError(FailureReason.IMAGE_NOT_FOUND, "no such key: gone")}
    )
    bench = Bench(FakeLog(records(json.dumps(notification).encode())), store)
    bench.run_to(1)
    assert [(v["source"]["index"], v["status"]) for v in bench.log.verdicts] == [
        (0, "scored"),
        (1, "scored"),
        (2, "failed"),
    ]


def test_a_partition_whose_events_wait_their_turn_behind_anothers_is_not_called_stuck() -> None:
    other = Partition(IN.topic, 1)
    released = threading.Event()
    store = FakeStore({f"http://images/{i}": lambda: (released.wait(20), png(1))[1] for i in range(100)})
    theirs = [Record(other, i, event(f"other-{i}", http("0"))) for i in range(5)]
    log = FakeLog(records(*(event(str(i), http(str(i))) for i in range(100))) + theirs, partitions=(IN, other))
    bench = Bench(log, store)
    bench.member._gauges._watchdog._stall_seconds = 2.0
    seen: set[str] = set()

    def done() -> bool:
        if not released.is_set():
            seen.update(bench.member.health_problems())
            if seen:
                released.set()
        return log.offsets == {IN: 100, other: 5}

    bench.run_until(done)
    assert len(seen) == 1
    assert "images.in/0 is behind" in seen.pop()


def test_a_partition_that_is_not_read_because_enough_is_under_way_is_not_called_stuck() -> None:
    other = Partition(IN.topic, 1)
    bench = Bench(FakeLog([], partitions=(IN, other)))
    bench.member._gauges.assigned({IN, other})
    assert bench.member._gauges._behind(Lag({IN: 10, other: 10}), paused={IN}) == {other}


def test_a_partition_that_another_producers_transaction_holds_is_not_called_stuck() -> None:
    bench = Bench(FakeLog([]))
    bench.member._gauges.assigned({IN})
    assert bench.member._gauges._behind(Lag({IN: 10}, {IN: 20}, frozenset({IN})), paused=set()) == frozenset()
    assert bench.member._gauges._behind(Lag({IN: 10}, {IN: 20}), paused=set()) == {IN}


def test_the_lag_counts_from_the_committed_offset() -> None:
    bench = Bench(FakeLog([]))
    bench.member._ledger.assign([IN])
    bench.member._ledger.receive(IN, 5, timestamp_ms=1000)
    bench.member._ledger.receive(IN, 6, timestamp_ms=2000)
    # read to offset 7, 13 more to the end at 20, and two of what was read have no committed verdict
    assert bench.member._gauges._uncommitted(IN, Lag({IN: 13}, {IN: 20})) == 15
    assert bench.member._gauges._uncommitted(IN, Lag({IN: 13})) == 15
    assert bench.member._ledger.oldest_timestamp_ms() == 1000


def test_a_member_that_stands_still_says_so() -> None:
    bench = http_bench(1, i0=lambda: (time.sleep(0.6), png(1))[1])
    bench.member._gauges._watchdog._stall_seconds = 0.0
    seen: list[tuple[str, ...]] = []

    def done() -> bool:
        seen.append(bench.member.health_problems())
        return bench.log.offsets.get(IN) == 1

    bench.run_until(done)
    assert any("images.in/0 is behind and has not moved" in line for lines in seen for line in lines)


def start_again_and_again(
    folder: Path, log: FakeLog, store: FakeStore, engine: Callable[[np.ndarray[Any, Any]], None], *, starts: int
) -> int:
    """Runs one process after another until all is committed, each the next holder of the markers. An EngineLost stands
    for the death of a process. Returns the number of starts."""
    wanted = {IN: len(log.waiting)}
    everything = list(log.waiting)
    for start in range(1, starts + 1):
        log.polls = [Poll(assigned=frozenset({IN}))]
        log.waiting = [record for record in everything if record.offset >= log.offsets.get(IN, 0)]
        bench = Bench(log, store, FakeEngine(engine), markers=FileMarkers(folder), process=f"process-{start}")
        try:
            bench.run_until(lambda: log.offsets == wanted)
        except EngineLost:
            continue
        return start
    raise AssertionError(f"not done after {starts} starts: {log.offsets}")


def test_an_image_at_which_the_process_dies_is_found_and_its_neighbours_are_judged(tmp_path: Path) -> None:
    count, culprit = 40, 17
    store = FakeStore({f"http://images/{i}": png(red=i * 5) for i in range(count)})
    log = FakeLog(records(*(event(str(i), http(str(i))) for i in range(count))))

    def dies(reds: np.ndarray[Any, Any]) -> None:
        if culprit * 5 in reds:
            raise EngineLost("killed")

    assert start_again_and_again(tmp_path, log, store, dies, starts=10) == 5
    failures = {v["event_id"]: v["failure"]["reason"] for v in log.verdicts if v["failure"]}
    assert failures == {str(culprit): "crashed_worker"}
    assert [v["event_id"] for v in log.verdicts] == [str(i) for i in range(count)], "each once"
    assert (
        list(tmp_path.iterdir()) == [] or Marker.model_validate_json(next(tmp_path.iterdir()).read_bytes()).holder == ""
    )


def test_an_engine_that_dies_by_itself_blames_no_image(tmp_path: Path) -> None:
    store = FakeStore({f"http://images/{i}": png(red=i * 5) for i in range(40)})
    log = FakeLog(records(*(event(str(i), http(str(i))) for i in range(40))))
    lives = iter((3, 5, 8))

    def dies_by_itself() -> Callable[[np.ndarray[Any, Any]], None]:
        state = {"left": next(lives)}

        def dies(reds: np.ndarray[Any, Any]) -> None:
            state["left"] -= 1
            if state["left"] == 0:
                state["left"] = next(lives, 10**9)
                raise EngineLost("the GPU is gone")

        return dies

    assert start_again_and_again(tmp_path, log, store, dies_by_itself(), starts=10) == 4
    assert len(log.verdicts) == 40
    assert {v["status"] for v in log.verdicts} == {"scored"}


def test_an_image_that_stops_a_remote_engine_each_time_is_given_up_and_the_engine_goes_on() -> None:
    """The engine runs elsewhere: it dies with the image, and another takes its place a moment later."""
    bench = http_bench(12)
    dead_until = [0.0]

    def engine_elsewhere(reds: np.ndarray[Any, Any]) -> None:
        if 35 in reds:
            dead_until[0] = time.monotonic() + 0.3
        if time.monotonic() < dead_until[0]:
            raise BatchFailed("the replica went away")

    bench.engine.before = engine_elsewhere
    bench.run_to(12)
    assert {v["event_id"]: v["failure"]["reason"] for v in bench.log.verdicts if v["failure"]} == {"7": "engine_failed"}


def test_records_that_the_log_has_lost_are_counted_and_what_it_says_makes_the_member_unhealthy() -> None:
    log = FakeLog([])
    log.polls.append(Poll(gaps=(Gap(IN, 3, 7),)))
    log.problems = ("partition images.in/0 stands still",)
    bench = Bench(log)
    bench.run_until(lambda: bench.metrics.records_lost._value.get() == 4)
    assert "partition images.in/0 stands still" in bench.member.health_problems()
