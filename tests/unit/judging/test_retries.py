"""Full jitter, caps and deadlines; the heap gives things back in the order they fall due."""

import random

from hypothesis import given
from hypothesis import strategies as st

from worker.judging.retries import DueHeap, RetryPolicy

POLICY = RetryPolicy(max_attempts=3, base_seconds=0.5, max_seconds=4.0, deadline_seconds=60.0)


@given(attempts=st.integers(0, 10_000), seed=st.integers())
def test_a_delay_is_never_longer_than_the_cap_or_the_exponential(attempts: int, seed: int) -> None:
    delay = POLICY.delay(attempts, random.Random(seed))
    assert 0.0 <= delay <= min(4.0, 0.5 * 2.0 ** min(attempts, 30))


def test_delays_are_spread_over_the_whole_range() -> None:
    rng = random.Random(1)
    delays = [POLICY.delay(2, rng) for _ in range(1000)]
    assert min(delays) < 0.1
    assert max(delays) > 1.9


def test_patience_ends_with_the_attempts_or_with_the_deadline() -> None:
    assert not POLICY.is_exhausted(2, first_failed_at=0.0, now=59.0)
    assert POLICY.is_exhausted(3, first_failed_at=0.0, now=1.0)
    assert POLICY.is_exhausted(1, first_failed_at=0.0, now=60.0)


@given(st.lists(st.floats(0, 100)), st.floats(0, 100))
def test_what_is_due_comes_in_order_and_the_rest_stays(dues: list[float], now: float) -> None:
    heap: DueHeap[float] = DueHeap()
    for due in dues:
        heap.push(due, due)
    assert heap.pop_due(now) == sorted(d for d in dues if d <= now)
    assert len(heap) == sum(d > now for d in dues)
