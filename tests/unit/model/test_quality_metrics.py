"""Figures of agreement, on cases worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr

from worker.model.metrics import generator_means, plcc, srcc, srcc_interval, srcc_within

values = st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=4, max_size=30)


@given(st.data(), values)
def test_correlations_agree_with_scipy(data: st.DataObject, human: list[float]) -> None:
    predicted = data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.5, 7.0]), min_size=len(human), max_size=len(human)))
    a, b = np.array(predicted), np.array(human)
    if len(set(predicted)) > 1 and np.std(b) > 1e-2:
        assert plcc(a, b) == pytest.approx(pearsonr(a, b).statistic, abs=1e-6)
        assert srcc(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-6)


def test_a_constant_prediction_correlates_with_nothing() -> None:
    assert srcc(np.ones(5), np.arange(5.0)) == 0
    assert plcc(np.ones(5), np.arange(5.0)) == 0


def test_within_generator_ignores_what_the_generator_alone_explains() -> None:
    human = np.array([1.0, 2, 3, 11, 12, 13])
    generators = ["a", "a", "a", "b", "b", "b"]
    only_the_generator = np.array([3.0, 2, 1, 13, 12, 11])
    assert srcc(only_the_generator, human) > 0.5
    assert srcc_within(only_the_generator, human, generators) == pytest.approx(-1)


def test_the_baseline_takes_its_means_from_the_other_folds() -> None:
    human = np.array([1.0, 3, 10, 20])
    assert generator_means(human, ["a", "a", "b", "b"], [0, 1, 0, 1]).tolist() == [3, 1, 20, 10]


def test_a_generator_seen_in_one_fold_only_gets_the_overall_mean() -> None:
    human = np.array([1.0, 3, 8])
    assert generator_means(human, ["a", "a", "b"], [0, 1, 0])[2] == pytest.approx(4)


def test_the_interval_holds_the_correlation_and_repeats_with_its_seed() -> None:
    random = np.random.default_rng(0)
    human = random.normal(size=200)
    predicted = human + random.normal(size=200)
    groups = [str(index // 4) for index in range(200)]
    low, high = srcc_interval(predicted, human, groups, seed=3)
    assert low < srcc(predicted, human) < high
    assert (low, high) == srcc_interval(predicted, human, groups, seed=3)
