import pytest

from ops.benchmarks.results import median_ratio


def test_a_busy_minute_that_meets_a_whole_round_does_not_spoil_the_ratio() -> None:
    pipeline, decoding, engine = [40.0, 8.0, 45.0], [500.0, 100.0, 500.0], [50.0, 10.0, 50.0]
    assert median_ratio(pipeline, decoding, engine) == pytest.approx(0.8)


def test_what_is_slowest_is_told_for_each_round() -> None:
    assert median_ratio([40.0], [50.0], [80.0]) == median_ratio([40.0], [80.0], [50.0]) == 0.8


def test_rounds_that_are_missing_are_no_ratio() -> None:
    with pytest.raises(ValueError, match="shorter"):
        median_ratio([40.0, 40.0], [50.0])
