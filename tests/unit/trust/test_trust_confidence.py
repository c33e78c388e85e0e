"""Intervals and certificates that may be looked at every day."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.trust.audits import Audits
from worker.trust.certificate import at_least, certify, loosest_threshold
from worker.trust.confidence import confidence_interval, log_evidence_above, log_evidence_below

NONE = Audits.counted({})


def evenly(missed: int, audited: int, probability: float = 0.01) -> Audits:
    return Audits.counted({probability: (audited - missed, missed)})


@st.composite
def counts(draw: st.DrawFn) -> Audits:
    return Audits.counted(
        draw(
            st.dictionaries(
                st.sampled_from([0.002, 0.01, 0.05, 0.3, 1.0]),
                st.tuples(st.integers(0, 2000), st.integers(0, 200)),
                min_size=1,
            )
        )
    )


def test_without_audits_nothing_is_known() -> None:
    assert confidence_interval(NONE, 0.01).low == 0.0
    assert confidence_interval(NONE, 0.01).high == 1.0
    found = certify(NONE, 0.01, at_most=0.02)
    assert found.state == "undecided"
    assert found.more_audits is not None
    assert certify(evenly(0, found.more_audits), 0.01, at_most=0.02).state == "certified"


@settings(deadline=None)
@given(counts(), st.floats(0.0005, 1))
def test_the_interval_ends_where_the_evidence_reaches_the_limit(audits: Audits, smallest: float) -> None:
    interval = confidence_interval(audits, smallest)
    limit = math.log(40)
    assert 0 <= interval.low <= interval.high <= 1
    if 0.0001 < interval.high < 0.9999:
        assert log_evidence_below(interval.high, audits, smallest) == pytest.approx(limit, abs=1e-5)
    if 0.0001 < interval.low < 0.9999:
        assert log_evidence_above(interval.low, audits, smallest) == pytest.approx(limit, abs=1e-5)


@settings(deadline=None)
@given(counts())
def test_more_confidence_gives_a_wider_interval(audits: Audits) -> None:
    narrow, wide = confidence_interval(audits, 0.01, 0.9), confidence_interval(audits, 0.01, 0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


@pytest.mark.parametrize("smallest", [0.05, 0.3, 1.0])
def test_the_evidence_against_the_true_share_has_a_mean_of_at_most_1(smallest: float) -> None:
    """Exactly, over all outcomes of the draw of 5 images of which 2 are bad."""
    images = [(0.3, True), (0.9, True), (0.3, False), (0.5, False), (0.9, False)]
    for evidence in (log_evidence_below, log_evidence_above):
        mean = 0.0
        for outcome in range(2 ** len(images)):
            drawn = [bool(outcome >> place & 1) for place in range(len(images))]
            chance = math.prod(p if is_drawn else 1 - p for (p, _), is_drawn in zip(images, drawn, strict=True))
            audits = Audits.of(image for image, is_drawn in zip(images, drawn, strict=True) if is_drawn)
            mean += chance * math.exp(evidence(2 / 5, audits, smallest))
        assert mean <= 1


def test_daily_looks_rarely_miss_the_true_share_though_audits_are_weighted_and_the_stream_shifts() -> None:
    rng = np.random.default_rng(19)
    probabilities, passed = np.array([0.01, 0.1]), np.array([1500, 150])
    wrong = streams = 0
    for _ in range(100):
        good, bad, all_bad = np.zeros(2, int), np.zeros(2, int), np.zeros(2, int)
        is_wrong = False
        for day in range(60):
            share = np.array([0.01, 0.1]) if day < 30 else np.array([0.03, 0.02])
            bad_today = rng.binomial(passed, share)
            found = rng.binomial(bad_today, probabilities)
            bad, all_bad = bad + found, all_bad + bad_today
            good = good + rng.binomial(passed - bad_today, probabilities)
            audits = Audits(probabilities, good.astype(float), bad.astype(float))
            true = float(all_bad.sum() / (passed.sum() * (day + 1)))  # outside of the interval, that is:
            evidence = max(log_evidence_below(true, audits, 0.01), log_evidence_above(true, audits, 0.01))
            is_wrong |= evidence >= math.log(40)
        wrong += is_wrong
        streams += 1
    assert wrong / streams <= 0.05


def test_enough_clean_audits_certify_a_bound_and_the_answer_says_how_many_are_needed() -> None:
    more = certify(evenly(0, 100), 0.01, at_most=0.01).more_audits
    assert more is not None
    assert certify(evenly(0, 100 + more), 0.01, at_most=0.01).state == "certified"
    assert certify(evenly(0, 100 + more - 1), 0.01, at_most=0.01).state == "undecided"


def test_many_bad_images_violate_a_bound() -> None:
    found = certify(evenly(20, 200), 0.01, at_most=0.01)
    assert found.state == "violated"
    assert found.more_audits is None


@settings(deadline=None)
@given(counts(), st.floats(0.001, 0.5))
def test_a_certified_bound_lies_above_the_estimate_and_a_violated_one_below(audits: Audits, at_most: float) -> None:
    state = certify(audits, 0.01, at_most=at_most).state
    share = audits.share
    assert state == "undecided" or (share is not None and (state == "certified") == (share < at_most))


def test_bad_images_that_were_drawn_often_count_less_than_those_drawn_rarely() -> None:
    often = Audits.counted({0.01: (400, 0), 0.2: (100, 5)})
    rarely = Audits.counted({0.01: (395, 5), 0.2: (105, 0)})
    assert certify(often, 0.01, at_most=0.02).state == "certified"
    assert certify(rarely, 0.01, at_most=0.02).state == "undecided"


def test_plans_that_draw_less_than_was_expected_leave_the_certificate_valid() -> None:
    """Bets that such an image could ruin are given up: the evidence stays finite and real."""
    audits = Audits.counted({0.1: (500, 2), 0.0001: (3, 1)})
    assert math.isfinite(log_evidence_below(0.02, audits, 0.1))
    assert certify(audits, 0.1, at_most=0.02).state == "undecided"


def test_the_loosest_threshold_is_the_lowest_quality_from_which_on_the_bound_is_certified() -> None:
    poor = [(2.1, 0.01, number % 5 == 0) for number in range(100)]
    fine = [(3.1, 0.01, False)] * 900
    found = at_least([*poor, *fine])
    assert sorted(found) == [1 + step / 4 for step in range(1, 9)]
    assert loosest_threshold(found, 0.01, at_most=0.01) == 2.25
    assert loosest_threshold(found, 0.01, at_most=0.0001) is None


@pytest.mark.parametrize(("good", "bad", "probability"), [(-1, 0, 0.5), (0, -1, 0.5), (1, 1, 0.0), (1, 1, 1.5)])
def test_counts_that_cannot_be_are_refused(good: int, bad: int, probability: float) -> None:
    with pytest.raises(ValueError, match=f"{good} good and {bad} bad"):
        Audits.counted({probability: (good, bad)})


@pytest.mark.parametrize(("at_most", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.02, 1.0), (0.02, 0.0)])
def test_bounds_and_confidences_outside_of_0_and_1_are_refused(at_most: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="at most"):
        certify(evenly(0, 10), 0.01, at_most=at_most, confidence=confidence)
