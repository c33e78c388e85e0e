"""How passed images are drawn for the audit, and how many of which quality."""

from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.unit.trust.test_trust_misses import START, plan, verdict
from worker.trust.allocation import DrawnImage, allocate
from worker.trust.audits import Audits
from worker.trust.drawing import AuditDraws, draw_point
from worker.trust.estimate import estimate
from worker.trust.gamma import gamma_cdf, gamma_quantile


def test_as_many_are_drawn_as_the_plan_says_and_always_the_same() -> None:
    events = [f"event-{number}" for number in range(20_000)]
    drawn = [event for event in events if draw_point(event) < 0.05]
    assert 850 < len(drawn) < 1150
    assert drawn == [event for event in events if draw_point(event.encode()) < 0.05]


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 400), min_size=1, unique=True),
    st.floats(1, 5),
    st.lists(st.integers(0, 400), max_size=4, unique=True),
    st.integers(0, 4),
)
def test_whoever_knows_the_plans_draws_the_same_images(
    events: list[int], limit: float, starts: list[int], turn: int
) -> None:
    """Workers that read the plans and the verdicts in another order, in parts, or again."""
    plans = [plan(start, ("low", limit, 0.9), ("rest", None, 0.2)) for start in starts]
    verdicts = [verdict(number, quality=1 + number % 40 / 10) for number in events]
    first = AuditDraws(plans, 0.3)
    second = AuditDraws([*plans[turn:], *plans[:turn], *plans[:1]], 0.3)
    drawn = {each.event_id: first.draw(each) for each in verdicts}
    assert drawn == {each.event_id: second.draw(each) for each in reversed(verdicts)}
    for each in verdicts:
        draw = drawn[each.event_id]
        assert draw is None or first.may_draw(each.event_id)
        if draw is not None:
            assert draw_point(each.event_id) < draw.probability


def test_a_plan_holds_from_its_time_until_the_next_one() -> None:
    draws = AuditDraws([plan(10, ("all", None, 0.5)), plan(20, ("low", 2.5, 1.0), ("rest", None, 0.2))], 0.1)
    at = [draws.chance(verdict(minute)) for minute in (9, 10, 19, 20)]
    assert [each.probability for each in at if each is not None] == [0.1, 0.5, 0.5, 0.2]
    low = draws.chance(verdict(30, quality=2.49))
    assert low is not None
    assert (low.stratum, low.probability) == ("low", 1.0)
    assert draws.smallest(START + timedelta(minutes=30)) == 0.2


def test_only_images_that_passed_and_can_be_looked_at_are_drawn() -> None:
    draws = AuditDraws((), 1.0)
    assert draws.draw(verdict(1)) is not None
    assert draws.draw(verdict(1, action="review")) is None
    assert draws.draw(verdict(1, action="reject")) is None
    assert draws.draw(verdict(1, image=None)) is None
    assert AuditDraws((), 0.0).chance(verdict(1)) is None


@pytest.mark.parametrize(
    "strata",
    [[("a", 2.0, 0.1)], [("a", 3.0, 0.1), ("b", 2.0, 0.1), ("c", None, 0.1)], [("a", None, 1), ("b", None, 1)]],
)
def test_plans_with_gaps_are_refused(strata: list[tuple[str, float | None, float]]) -> None:
    with pytest.raises(ValidationError, match="rising limits"):
        plan(0, *strata)


def _drawn(count: int = 2000) -> list[DrawnImage]:
    rng = np.random.default_rng(7)
    quality = rng.uniform(2, 5, count)
    bad = rng.random(count) < np.where(quality < 2.4, 0.15, 0.002)
    return [DrawnImage(float(q), 0.05, bool(b)) for q, b in zip(quality, bad, strict=True)]


def test_the_budget_is_spent_and_most_of_it_where_bad_images_were_found() -> None:
    strata = allocate(_drawn(), 7, budget_per_day=400, uniform_share=0.001)
    by_quality = sorted(image.quality for image in _drawn())
    expected, lower = 0.0, 0.0
    for stratum in strata:
        upper = stratum.below if stratum.below is not None else 9.0
        passed = sum(lower <= quality < upper for quality in by_quality) / 0.05 / 7
        expected, lower = expected + passed * stratum.probability, upper
    assert expected == pytest.approx(400, rel=0.02)
    assert strata[0].probability > 3 * strata[-1].probability
    assert min(stratum.probability for stratum in strata) >= 0.5 * 400 / (2000 / 0.05 / 7) * 0.99


def test_a_uniform_share_that_costs_more_than_the_budget_is_drawn_nonetheless() -> None:
    strata = allocate(_drawn(), 7, budget_per_day=10, uniform_share=0.1)
    assert {stratum.probability for stratum in strata} == {0.1}


def test_while_little_is_known_all_are_drawn_evenly() -> None:
    (only,) = allocate(_drawn(49), 7, budget_per_day=400, uniform_share=0.02)
    assert (only.name, only.probability) == ("all", 0.02)


@settings(deadline=None)
@given(st.permutations(range(60)), st.booleans())
def test_a_plan_does_not_depend_on_the_order_of_audits_and_one_class_is_enough(order: list[int], bad: bool) -> None:
    drawn = [DrawnImage(2 + number % 7 / 3, 0.1, bad if number % 2 else None) for number in range(60)]
    found = allocate([drawn[number] for number in order], 1, budget_per_day=20, uniform_share=0)
    assert found == allocate(drawn, 1, budget_per_day=20, uniform_share=0)
    assert all(0 < stratum.probability <= 1 for stratum in found)


@pytest.mark.parametrize(
    ("quantile", "shape", "value"),
    [  # SciPy 1.17, scipy.stats.gamma.ppf
        (0.025, 1.0, 0.025317807984289897),
        (0.975, 1.0, 3.6888794541139354),
        (0.025, 0.5, 0.0004910346095597),
        (0.5, 50.0, 49.66720505),
        (0.975, 1000.0, 1062.9239),
    ],
)
def test_gamma_quantiles_are_those_of_the_tables(quantile: float, shape: float, value: float) -> None:
    assert gamma_quantile(quantile, shape) == pytest.approx(value, rel=1e-5)
    assert gamma_cdf(gamma_quantile(quantile, shape), shape) == pytest.approx(quantile)


def test_for_equal_weights_the_interval_is_the_exact_one_of_a_poisson_count() -> None:
    """8 of 10,000: Garwood's interval (1936) of 8 is 3.454 to 15.763."""
    found = estimate(Audits.counted({0.01: (9992, 8)}))
    assert found.share == 0.0008
    assert found.interval.low == pytest.approx(3.454e-4, rel=0.01)
    assert found.interval.high == pytest.approx(15.763e-4, rel=0.01)
    assert found.represented == pytest.approx(1_000_000)


@settings(deadline=None)
@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 300), st.integers(0, 300))
def test_the_interval_holds_the_estimate(bad: int, often_bad: int, good: int, often_good: int) -> None:
    found = estimate(Audits.counted({0.01: (good, bad), 0.3: (often_good, often_bad)}))
    assert 0 <= found.interval.low <= found.interval.high <= 1
    if found.share is None:
        assert (found.interval.low, found.interval.high) == (0, 1)
    else:
        assert found.interval.low - 1e-12 <= found.share <= found.interval.high + 1e-12
