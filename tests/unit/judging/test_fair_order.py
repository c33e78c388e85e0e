"""Who gets the next turn: shares, starvation, order."""

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import FileReference, ImageEvent
from worker.judging.fair_order import MAX_REMEMBERED, FairOrder
from worker.judging.job import Job
from worker.judging.lanes import Lane, LaneShares
from worker.judging.ready_queue import ReadyQueue

WEIGHTS = {"a": 1.0, "b": 2.0, "c": 0.5, "d": 7.0}
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def job(tenant: str, number: int = 0, lane: Lane = Lane.LIVE) -> Job:
    event = ImageEvent(id=f"{tenant}-{number}", occurred_at=NOW, tenant=tenant, image=FileReference(path="/x.png"))
    return Job(event, 0.0, lane=lane)


def queue_of(shares: LaneShares | None = None, weights: dict[str, float] | None = None) -> ReadyQueue[Job]:
    return ReadyQueue((shares or LaneShares()).weights(), lambda tenant: (weights or WEIGHTS).get(tenant, 1.0))


Step = tuple[str, int] | None
steps = st.lists(st.none() | st.tuples(st.sampled_from("abcd"), st.integers(1, 30)), max_size=120)
"""Arrivals of some jobs of a tenant; None: the server takes a turn."""


@given(steps)
def test_shares_stay_within_the_bound_while_two_tenants_wait(script: list[Step]) -> None:
    queue = queue_of()
    waiting: Counter[str] = Counter()
    served_while_both: dict[tuple[str, str], Counter[str]] = {}
    for step in script:
        if step is not None:
            queue.extend([job(step[0], i) for i in range(step[1])])
            waiting[step[0]] += step[1]
            continue
        if not queue:
            continue
        before = {tenant for tenant, count in waiting.items() if count}
        tenant = queue.pop().event.tenant
        waiting[tenant] -= 1
        for one in WEIGHTS:
            for other in WEIGHTS:
                if one >= other:
                    continue
                pair = (one, other)
                if not {one, other} <= before:
                    served_while_both.pop(pair, None)
                    continue
                counts = served_while_both.setdefault(pair, Counter())
                counts[tenant] += tenant in pair
                gap = abs(counts[one] / WEIGHTS[one] - counts[other] / WEIGHTS[other])
                assert gap <= 1 / WEIGHTS[one] + 1 / WEIGHTS[other] + 1e-9


@given(steps)
def test_every_job_comes_out_once_in_order_of_its_tenant_and_no_turn_is_idle(script: list[Step]) -> None:
    queue = queue_of()
    put: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for step in [*script, *[None] * 3600]:
        if step is not None:
            queue.extend([job(step[0], put[step[0]] + i) for i in range(step[1])])
            put[step[0]] += step[1]
            continue
        assert len(queue) == (put - taken).total(), "no turn may be idle while jobs wait"
        if not queue:
            continue
        announced = queue.first()
        got = queue.pop()
        assert got is announced
        tenant = got.event.tenant
        assert got.event.id == f"{tenant}-{taken[tenant]}"
        taken[tenant] += 1
    assert taken == put


def test_a_tenant_with_ten_jobs_does_not_wait_for_one_with_ten_thousand() -> None:
    queue = queue_of(weights={})
    queue.extend([job("flood", i) for i in range(10_000)])
    queue.extend([job("small", i) for i in range(10)])
    first = [queue.pop().event.tenant for _ in range(25)]
    assert first.count("small") == 10


def test_a_tenant_that_was_silent_gets_no_credit_for_that_time() -> None:
    queue = queue_of(weights={})
    queue.extend([job("busy", i) for i in range(1000)])
    for _ in range(500):
        queue.pop()
    queue.extend([job("late", i) for i in range(100)])
    turns = Counter(queue.pop().event.tenant for _ in range(100))
    assert turns["busy"] == pytest.approx(50, abs=1)


def test_lanes_get_their_shares_and_none_starves() -> None:
    queue = queue_of(LaneShares(priority=0.5, surplus=0.1))
    queue.extend([job("t", i, lane) for lane in Lane for i in range(1000)])
    turns = Counter(queue.pop().lane for _ in range(1000))
    assert {lane: round(turns[lane] / 1000, 2) for lane in Lane} == {
        Lane.PRIORITY: 0.5,
        Lane.LIVE: 0.4,
        Lane.SURPLUS: 0.08,
        Lane.SURPLUS_LONG: 0.02,
    }


def test_what_a_lane_does_not_use_goes_to_the_others() -> None:
    queue = queue_of()
    queue.extend([job("t", i, Lane.SURPLUS_LONG) for i in range(5)])
    assert [queue.pop().lane for _ in range(5)] == [Lane.SURPLUS_LONG] * 5


def test_a_priority_job_is_next_or_next_but_one_however_many_wait() -> None:
    queue = queue_of()
    queue.extend([job("a", i) for i in range(1500)])
    for _ in range(700):
        queue.pop()
    queue.extend([job("b", 0, Lane.PRIORITY)])
    assert "b" in {queue.pop().event.tenant for _ in range(2)}


def test_the_memory_of_tenants_without_work_is_bounded() -> None:
    order: FairOrder[str] = FairOrder(lambda _: 1.0)
    order.enter("always")
    for i in range(3 * MAX_REMEMBERED):
        order.enter(f"once-{i}")
        while (name := order.next) == "always":
            order.serve(has_more=True)
        assert name == f"once-{i}"
        order.serve(has_more=False)
    assert len(order._finished) <= MAX_REMEMBERED
