"""Backoff: longer with each failure, spread by jitter, never over its limit. The breaker opens on systemic failure
only, lets single probes through, and closes when one succeeds."""

import itertools
import random

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from worker.backoff import Backoff, Breaker


@given(st.integers(1, 10_000), st.floats(0.0, 1.0), st.integers())
def test_a_pause_is_within_its_jitter_below_the_doubled_and_limited_one(
    failures: int, jitter: float, seed: int
) -> None:
    ceiling = min(8.0, 0.5 * 2.0 ** min(failures - 1, 30))
    seconds = Backoff(0.5, 8.0, jitter).seconds(failures, random.Random(seed))
    assert ceiling * (1.0 - jitter) <= seconds <= ceiling


def a_breaker() -> Breaker:
    return Breaker(min_calls=4, failure_rate=0.5, window_seconds=10.0, pause_seconds=2.0)


def test_a_single_bad_object_among_good_ones_does_not_open_it() -> None:
    breaker = a_breaker()
    for i in range(100):
        breaker.record(succeeded=i % 3 != 2, now=i * 0.01)
        assert not breaker.is_open


def test_half_of_the_calls_failing_opens_it() -> None:
    breaker = a_breaker()
    for i in range(4):
        breaker.record(succeeded=i % 2 == 0, now=i * 0.1)
    assert breaker.is_open
    assert not breaker.allow(now=1.0)


def test_an_outage_after_many_successes_opens_it_as_soon_as_nothing_succeeds() -> None:
    breaker = a_breaker()
    for i in range(200):
        breaker.record(succeeded=True, now=i * 0.01)
    outcomes = []
    for i in range(4):
        breaker.record(succeeded=False, now=2.0 + i * 0.1)
        outcomes.append(breaker.is_open)
    assert outcomes == [False, False, False, True]


def test_failures_of_long_ago_do_not_count() -> None:
    breaker = a_breaker()
    for i in range(3):
        breaker.record(succeeded=False, now=float(i))
    breaker.record(succeeded=False, now=60.0)
    assert not breaker.is_open


def test_each_pause_lets_one_probe_through() -> None:
    breaker = a_breaker()
    breaker.trip(now=0.0)
    assert [breaker.allow(now=t) for t in (1.9, 2.0, 2.1, 3.9, 4.0)] == [False, True, False, False, True]


def test_pauses_may_double_up_to_a_limit_and_start_again_with_the_next_outage() -> None:
    breaker = Breaker(pause_seconds=1.0, longest_pause_seconds=3.0)
    for start in (0.0, 100.0):
        breaker.trip(now=start)
        probes = [t / 2 for t in range(24) if breaker.allow(now=start + t / 2)]
        assert probes == [1.0, 3.0, 6.0, 9.0]
        breaker.record(succeeded=True, now=start + 12.0)


def test_one_success_closes_it_and_the_past_is_forgotten() -> None:
    breaker = a_breaker()
    breaker.trip(now=0.0)
    breaker.record(succeeded=True, now=2.0)
    assert not breaker.is_open
    breaker.record(succeeded=False, now=2.1)
    assert not breaker.is_open


class BreakerOverTime(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.breaker = a_breaker()
        self.now = 0.0
        self.probes: list[float] = []

    @rule(seconds=st.floats(0.0, 3.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(succeeded=st.booleans())
    def call(self, succeeded: bool) -> None:
        was_open = self.breaker.is_open
        if self.breaker.allow(self.now):
            if was_open:
                self.probes.append(self.now)
            self.breaker.record(succeeded, self.now)
            if succeeded and was_open:
                assert not self.breaker.is_open
                self.probes.clear()

    @invariant()
    def probes_keep_their_distance(self) -> None:
        probes = getattr(self, "probes", [])
        assert all(later - earlier >= 2.0 for earlier, later in itertools.pairwise(probes))


TestBreakerOverTime = BreakerOverTime.TestCase
TestBreakerOverTime.settings = settings(deadline=None)
