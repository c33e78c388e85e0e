"""Which events are put off: never those of a tenant within its share and quota, and enough of the others'."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.fairness import FIRST_GUESS, LONG_SECONDS, FairAdmission, JudgingSpeed, TenantBacklogs
from worker.judging.lanes import Lane
from worker.settings import FairnessSettings

WINDOW = 10


class Simulation:
    """A worker that judges `per_second` live events, in whatever order; time goes in steps of a tenth of a second."""

    def __init__(self, settings: FairnessSettings, per_second: float) -> None:
        self.admission = FairAdmission(settings, window=WINDOW)
        self.per_second = per_second
        self.admission.speed.per_second = per_second
        self.live = 0.0
        self.now = 0.0
        self.lanes: dict[str, Counter[Lane]] = {}

    def send(self, tenant: str, count: int) -> list[Lane]:
        lanes = []
        for _ in range(count):
            lane = self.admission.lane(tenant, 1, Lane.LIVE, live=int(self.live), now=self.now)
            self.live += lane is Lane.LIVE
            self.lanes.setdefault(tenant, Counter())[lane] += 1
            lanes.append(lane)
        return lanes

    def step(self) -> None:
        self.now += 0.1
        self.live = max(0.0, self.live - self.per_second * 0.1)
        self.admission.turn(0, is_saturated=False, now=self.now)


arrivals = st.lists(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 200)), max_size=3), min_size=1, max_size=60
)
"""Per step, which tenants send how many events."""


@given(arrivals, st.sampled_from([5.0, 50.0, 1000.0]))
def test_live_events_never_wait_for_more_than_about_twice_the_delay(
    steps: list[list[tuple[str, int]]], per_second: float
) -> None:
    settings = FairnessSettings(delay_seconds=2.0, tenant_weights={"d": 3.0})
    simulation = Simulation(settings, per_second)
    for sent in steps:
        for tenant, count in sent:
            simulation.send(tenant, count)
            # What was let in while there was room, and then each tenant's share of one delay.
            assert simulation.live <= max(WINDOW, 2 * per_second) + 2 * per_second * 4 + 4
        simulation.step()


@given(arrivals)
def test_a_tenant_within_its_share_is_never_put_off(steps: list[list[tuple[str, int]]]) -> None:
    simulation = Simulation(FairnessSettings(delay_seconds=2.0), per_second=50.0)
    for sent in steps:
        for tenant, count in sent:
            simulation.send(tenant, count)
        assert simulation.send("small", 1) == [Lane.LIVE], "five tenants share 50 a second, and it sends 10"
        simulation.step()


def test_a_flood_is_put_off_and_what_is_far_behind_goes_to_the_long_lane() -> None:
    simulation = Simulation(FairnessSettings(delay_seconds=2.0), per_second=50.0)
    lanes = Counter(simulation.send("flood", 100_000))
    assert lanes[Lane.LIVE] == pytest.approx(100, abs=2)
    assert lanes[Lane.SURPLUS] == pytest.approx(LONG_SECONDS * 50, rel=0.05)
    assert lanes[Lane.SURPLUS_LONG] == 100_000 - lanes[Lane.LIVE] - lanes[Lane.SURPLUS]
    assert Counter(simulation.send("small", 10)) == {Lane.LIVE: 10}


def test_nothing_is_put_off_while_the_worker_keeps_up() -> None:
    simulation = Simulation(FairnessSettings(), per_second=50.0)
    for _ in range(100):
        assert set(simulation.send("only", 5)) == {Lane.LIVE}
        simulation.step()


def test_a_weight_gives_a_tenant_that_much_more_before_it_is_put_off() -> None:
    simulation = Simulation(FairnessSettings(delay_seconds=2.0, tenant_weights={"big": 4.0}), per_second=50.0)
    for _ in range(20):
        simulation.send("big", 20)
        simulation.send("normal", 20)
    assert simulation.lanes["big"][Lane.LIVE] > 2 * simulation.lanes["normal"][Lane.LIVE]


def test_over_its_quota_a_tenant_is_put_off_though_the_worker_has_room() -> None:
    settings = FairnessSettings(quotas={"metered": 2.0}, quota_burst_seconds=5.0)
    simulation = Simulation(settings, per_second=1000.0)
    lanes = simulation.send("metered", 15)
    assert Counter(lanes) == {Lane.LIVE: 11, Lane.SURPLUS: 4}, "a burst of 5 s at 2 a second, and the one that fills it"
    assert simulation.send("free", 100).count(Lane.LIVE) == 100
    for _ in range(100):
        simulation.step()
    assert simulation.send("metered", 1) == [Lane.LIVE]


def test_the_default_quota_holds_for_each_tenant_by_itself_and_a_share_for_this_worker() -> None:
    settings = FairnessSettings(quota_per_second=10.0, quota_burst_seconds=1.0)
    simulation = Simulation(settings, per_second=1000.0)
    simulation.admission.quotas.share = 0.5
    assert Counter(simulation.send("a", 20))[Lane.LIVE] == 6
    assert Counter(simulation.send("b", 20))[Lane.LIVE] == 6


def test_memory_does_not_grow_with_the_names_of_tenants() -> None:
    simulation = Simulation(FairnessSettings(quota_per_second=10.0), per_second=1000.0)
    for i in range(5000):
        simulation.send(f"t{i}", 1)
    for _ in range(100):
        simulation.step()
    assert not simulation.admission.quotas._buckets
    assert not simulation.admission._backlogs._levels


def test_backlogs_drain_by_weight() -> None:
    backlogs = TenantBacklogs(lambda tenant: 3.0 if tenant == "heavy" else 1.0)
    backlogs.add("heavy", 60, 10.0)
    backlogs.add("light", 60, 10.0)
    backlogs.drain(10.0, 4.0)
    assert backlogs.add("heavy", 0, 10.0) == pytest.approx(30 / 7.5)
    assert backlogs.add("light", 0, 10.0) == pytest.approx(50 / 2.5)


def test_the_speed_is_measured_only_while_there_is_enough_to_do() -> None:
    speed = JudgingSpeed()
    speed.observe(0, is_saturated=False, now=0.0)
    speed.observe(10, is_saturated=False, now=10.0)
    assert speed.per_second == FIRST_GUESS
    speed.observe(10, is_saturated=True, now=10.0)
    speed.observe(510, is_saturated=True, now=11.0)
    assert speed.per_second == 500
    speed.observe(1510, is_saturated=True, now=12.0)
    assert 500 < speed.per_second < 1000
