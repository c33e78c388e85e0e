"""Intervals and certificates that may be looked at every day."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.trust.certificate import certify
from worker.trust.confidence import confidence_interval, log_evidence


@st.composite
def counts(draw: st.DrawFn) -> tuple[int, int]:
    trials = draw(st.integers(1, 5000))
    return draw(st.integers(0, trials)), trials


def test_without_audits_nothing_is_known() -> None:
    assert confidence_interval(0, 0).low == 0.0
    assert confidence_interval(0, 0).high == 1.0
    assert certify(0, 0, at_most=0.02).state == "undecided"


@given(counts())
def test_the_interval_holds_the_observed_share_and_ends_where_the_evidence_reaches_the_limit(
    found: tuple[int, int],
) -> None:
    hits, trials = found
    interval = confidence_interval(hits, trials)
    assert 0 <= interval.low <= hits / trials <= interval.high <= 1
    for end in (interval.low, interval.high):
        if 0 < end < 0.9999:  # nearer to 1 than that, a double holds too few digits of 1 - end
            assert log_evidence(end, hits, trials) == pytest.approx(math.log(20), abs=1e-6)


@given(counts())
def test_more_confidence_gives_a_wider_interval(found: tuple[int, int]) -> None:
    narrow, wide = confidence_interval(*found, 0.9), confidence_interval(*found, 0.99)
    assert wide.low <= narrow.low
    assert narrow.high <= wide.high


def test_the_evidence_is_a_martingale_under_the_true_share() -> None:
    """Its mean over all outcomes of n trials is 1: summed exactly, with binomial probabilities."""
    share, trials = 0.03, 60
    mean = sum(
        math.comb(trials, hits)
        * share**hits
        * (1 - share) ** (trials - hits)
        * math.exp(log_evidence(share, hits, trials))
        for hits in range(trials + 1)
    )
    assert mean == pytest.approx(1.0)


def test_daily_looks_rarely_miss_the_true_share_where_a_fixed_interval_often_does() -> None:
    rng = np.random.default_rng(19)
    share, days, a_day, streams = 0.02, 90, 20, 200
    wrong = 0
    for _ in range(streams):
        missed = np.cumsum(rng.binomial(a_day, share, days))
        intervals = [confidence_interval(int(hits), a_day * (day + 1)) for day, hits in enumerate(missed)]
        wrong += any(not interval.low <= share <= interval.high for interval in intervals)
    assert wrong / streams <= 0.05


def test_enough_clean_audits_certify_a_bound_and_the_answer_says_how_many_are_needed() -> None:
    more = certify(0, 100, at_most=0.01).more_audits
    assert more is not None
    assert certify(0, 100 + more, at_most=0.01).state == "certified"
    assert certify(0, 100 + more - 1, at_most=0.01).state == "undecided"


def test_many_bad_images_violate_a_bound() -> None:
    found = certify(20, 200, at_most=0.01)
    assert found.state == "violated"
    assert found.more_audits is None


@given(counts(), st.floats(0.001, 0.5))
def test_a_certified_bound_lies_above_the_observed_share(found: tuple[int, int], at_most: float) -> None:
    missed, audited = found
    state = certify(missed, audited, at_most=at_most).state
    assert state == "undecided" or (state == "certified") == (missed / audited < at_most)


@pytest.mark.parametrize(("missed", "audited"), [(3, 2), (-1, 2)])
def test_counts_that_cannot_be_are_refused(missed: int, audited: int) -> None:
    with pytest.raises(ValueError, match=f"{missed} of {audited}"):
        confidence_interval(missed, audited)


@pytest.mark.parametrize(("at_most", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.02, 1.0), (0.02, 0.0)])
def test_bounds_and_confidences_outside_of_0_and_1_are_refused(at_most: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="at most"):
        certify(0, 10, at_most=at_most, confidence=confidence)
