from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import Failure, FailureReason, Route, Scores
from worker.demo.report.entry import ReportEntry
from worker.demo.report.tally import Tally

PASS = Route(action="pass", rule="r")
REVIEW = Route(action="review", queue="low", rule="r")


def scored(quality: float, name: str = "x.jpg", route: Route = PASS, cached: bool = False) -> ReportEntry:
    return ReportEntry(name, route, Scores(quality=quality), cached=cached)


def failed(name: str = "x.jpg") -> ReportEntry:
    failure = Failure(reason=FailureReason.UNDECODABLE_IMAGE, message="broken")
    return ReportEntry(name, REVIEW, None, failure)


@given(st.lists(st.floats(1, 5), max_size=60), st.integers(1, 20))
def test_the_worst_are_kept_in_order_and_all_are_counted(qualities: list[float], keep: int) -> None:
    tally = Tally(keep)
    for index, quality in enumerate(qualities):
        tally.add(scored(quality, str(index)))

    expected = sorted(range(len(qualities)), key=lambda index: (qualities[index], index))[:keep]
    assert [entry.name for entry in tally.worst] == [str(index) for index in expected]
    assert tally.scored == len(qualities)
    assert sum(bin_.total() for bin_ in tally.bins) == len(qualities)


def test_failures_are_counted_by_reason_and_only_the_first_are_kept() -> None:
    tally = Tally(2)
    for index in range(5):
        tally.add(failed(str(index)))

    assert tally.failed == tally.total == 5
    assert tally.reasons == {FailureReason.UNDECODABLE_IMAGE: 5}
    assert [entry.name for entry in tally.failures] == ["0", "1"]
    assert tally.routes == {("review", "low"): 5}


def test_cached_scores_count_as_scored() -> None:
    tally = Tally(9)
    tally.add(scored(3.0))
    tally.add(scored(3.0, cached=True))

    assert (tally.scored, tally.cached) == (2, 1)


def test_the_ends_of_the_scale_fall_into_the_outer_bins() -> None:
    tally = Tally(9)
    for quality in (1.0, 5.0):
        tally.add(scored(quality))

    assert tally.bins[0] == tally.bins[-1] == Counter({"pass": 1})


def test_quantiles_are_those_of_all_images_not_of_the_kept() -> None:
    tally = Tally(1)
    for quality in (1.0, 2.0, 3.0, 4.0, 5.0):
        tally.add(scored(quality))

    assert tally.quantile(0.5) == pytest.approx(3.0)
    assert tally.quantile(1.0) == pytest.approx(5.0)
    assert Tally(1).quantile(0.5) is None


def test_actions_sum_over_queues() -> None:
    tally = Tally(9)
    tally.add(scored(2.0, route=REVIEW))
    tally.add(scored(2.0, route=Route(action="review", queue="other", rule="r")))

    assert tally.actions() == {"review": 2}
