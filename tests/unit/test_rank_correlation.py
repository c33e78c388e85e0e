import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.rank_correlation import rank_correlation

numbers = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=30, unique=True)


@given(numbers)
def test_the_same_order_correlates_fully_whatever_the_scale(values: list[float]) -> None:
    assert rank_correlation(values, [sorted(values).index(value) ** 3 for value in values]) == pytest.approx(1)


@given(numbers)
def test_the_reverse_order_correlates_negatively(values: list[float]) -> None:
    assert rank_correlation(values, [-value for value in values]) == pytest.approx(-1)


def test_ties_share_their_mean_rank() -> None:
    # Ranks 1, 2.5, 2.5, 4 against 1, 3, 2, 4: Pearson's correlation of these is 4.5 / sqrt(4.5 * 5).
    assert rank_correlation([1, 2, 2, 3], [10, 30, 20, 40]) == pytest.approx(4.5 / (4.5 * 5) ** 0.5)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [3.0, 3.0, 3.0]])
def test_nothing_is_said_of_too_few_or_equal_values(values: list[float]) -> None:
    assert rank_correlation(values, values) is None


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="3 values against 2"):
        rank_correlation([1, 2, 3], [1, 2])
