"""Votes, order, samples, agreement and capacity: numbers that can be checked by hand."""

import math
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.review.review_bench import START
from worker.review.agreement import cohen_kappa, fleiss_kappa, overall_kappa, pairwise_kappas
from worker.review.capacity import Capacity, CapacityError, Scored, propose
from worker.review.capacity_plot import plot
from worker.review.order import due
from worker.review.sampling import wilson
from worker.review.votes import settle
from worker.settings import QueueSettings, ReviewSettings

TIES = st.sampled_from(["approve", "reject", "escalate"])
VOTES = st.lists(st.sampled_from(["approve", "reject"]), max_size=9)


@pytest.mark.parametrize(
    ("votes", "agree", "of", "outcome"),
    [
        ("", 1, 1, None),
        ("a", 1, 1, "approve"),
        ("r", 1, 3, "reject"),
        ("a", 2, 3, None),
        ("ar", 2, 3, None),
        ("arr", 2, 3, "reject"),
        ("ar", 2, 2, "escalate"),
        ("aarr", 3, 4, "escalate"),
        ("aar", 3, 4, None),
        ("ar", 3, 3, "escalate"),  # the third vote cannot make three equal
    ],
)
def test_votes_settle_an_item(votes: str, agree: int, of: int, outcome: str | None) -> None:
    cast: Any = [{"a": "approve", "r": "reject"}[vote] for vote in votes]
    assert settle(cast, QueueSettings(agree=agree, votes=of)) == outcome


@given(
    votes=VOTES, agree=st.integers(1, 5), more=st.integers(0, 4), tie=st.sampled_from(["approve", "reject", "escalate"])
)
def test_voting_ends_within_the_number_of_votes_and_more_votes_change_no_majority(
    votes: Any, agree: int, more: int, tie: Any
) -> None:
    rules = QueueSettings(agree=agree, votes=agree + more, tie=tie)
    outcomes = [settle(votes[:count], rules) for count in range(len(votes) + 1)]
    if len(votes) >= rules.votes:
        assert any(outcomes)
    first = next((count for count, outcome in enumerate(outcomes) if outcome), None)
    if first is not None:
        counts = Counter(votes[:first])
        majority = [vote for vote, number in counts.items() if number >= agree]
        assert outcomes[first] == (majority[0] if majority else tie)


ITEMS = st.tuples(st.integers(0, 100), st.integers(0, 10**6), st.sampled_from(["default", "gold"]))
WEIGHTED = ReviewSettings(tenant_weights={"gold": 4.0})


@given(first=ITEMS, second=ITEMS, later=st.integers(0, 10**6))
def test_the_order_of_two_items_does_not_depend_on_when_one_looks(first: Any, second: Any, later: int) -> None:
    def due_of(item: Any, shift: int) -> float:
        return due(START + timedelta(seconds=item[1] + shift), item[0], item[2], WEIGHTED)

    now = due_of(first, 0) - due_of(second, 0)
    assert math.isclose(now, due_of(first, later) - due_of(second, later), abs_tol=1e-3)


def test_priority_age_and_weight_all_count() -> None:
    assert due(START, 80, "default", WEIGHTED) < due(START, 50, "default", WEIGHTED)
    assert due(START, 50, "default", WEIGHTED) < due(START + timedelta(minutes=1), 50, "default", WEIGHTED)
    assert due(START, 50, "gold", WEIGHTED) < due(START, 50, "default", WEIGHTED)


@given(item=ITEMS, other=ITEMS)
def test_nothing_starves_behind_what_comes_after_it_was_due(item: Any, other: Any) -> None:
    when = due(START + timedelta(seconds=item[1]), item[0], item[2], WEIGHTED)
    late = START + timedelta(seconds=when - START.timestamp() + 1)
    assert due(late, other[0], other[2], WEIGHTED) > when


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [
        # Newcombe 1998, table I: Wilson's method without continuity correction
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_wilson_interval_is_that_of_the_literature(count: int, total: int, low: float, high: float) -> None:
    share = wilson(count, total)
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


@given(total=st.integers(1, 10_000), part=st.floats(0, 1))
def test_the_wilson_interval_holds_the_share(total: int, part: float) -> None:
    count = int(part * total)
    share = wilson(count, total)
    assert 0 <= share.low <= count / total <= share.high <= 1
    mirrored = wilson(total - count, total)
    assert math.isclose(mirrored.low, 1 - share.high, abs_tol=1e-9)


def test_without_any_audited_image_nothing_is_known() -> None:
    share = wilson(0, 0)
    assert (share.share, share.low, share.high) == (None, 0.0, 1.0)
    with pytest.raises(ValueError, match="3 of 2"):
        wilson(3, 2)


def test_cohens_kappa_is_that_of_the_textbook() -> None:
    # 50 items: both yes 20, yes/no 5, no/yes 10, both no 15: observed 0.7, by chance 0.5
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    assert cohen_kappa(pairs) == pytest.approx(0.4)
    assert cohen_kappa([("a", "a"), ("b", "b")]) == 1
    assert cohen_kappa([("a", "b"), ("b", "a")]) == -1
    assert cohen_kappa([("a", "a")] * 5) is None
    assert cohen_kappa([]) is None


def test_fleiss_kappa_is_that_of_the_literature() -> None:
    # Fleiss 1971 as worked through in the encyclopaedias: 10 items, 14 raters, 5 answers, kappa 0.210
    counts = [
        *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
        *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
    ]
    ratings = [[str(answer) for answer, number in enumerate(row) for _ in range(number)] for row in counts]
    assert fleiss_kappa(ratings) == pytest.approx(0.210, abs=5e-4)
    with pytest.raises(ValueError, match="same number"):
        fleiss_kappa([["a", "b"], ["a"]])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1))
def test_kappas_are_symmetric_and_at_most_one(pairs: Sequence[tuple[str, str]]) -> None:
    kappa = cohen_kappa(pairs)
    mirrored = cohen_kappa([(b, a) for a, b in pairs])
    if kappa is None:
        assert mirrored is None
    else:
        assert mirrored == pytest.approx(kappa)
        assert kappa <= 1


def test_agreement_is_told_only_where_enough_was_judged_together() -> None:
    panels: Any = [
        {"ann": "approve", "bob": "approve"},
        {"bob": "reject", "ann": "reject"},
        {"ann": "reject", "cem": "reject"},
    ]
    assert pairwise_kappas(panels, 2) == {("ann", "bob"): 1.0}
    assert pairwise_kappas(panels, 3) == {}
    assert overall_kappa(panels, 3) == 1.0
    assert overall_kappa(panels, 4) is None


def stream() -> list[Scored]:
    """1,000 images, quality evenly from 1 to 5; those below 2 are bad, and one in ten above 4."""
    qualities = [1 + 4 * number / 1000 for number in range(1000)]
    return [
        Scored(quality, quality < 2 or (quality > 4 and number % 10 == 0)) for number, quality in enumerate(qualities)
    ]


def test_the_proposed_threshold_fills_the_reviewers_time_and_no_more() -> None:
    capacity = Capacity(reviewers=2, hours=5, seconds_per_item=10, busy=1.0)
    assert capacity.items_a_day == 3600
    proposal = propose(stream(), capacity, images_a_day=36_000)
    assert proposal.chosen.threshold == pytest.approx(1.4)
    assert proposal.chosen.share == pytest.approx(0.1)
    assert proposal.chosen.items_a_day == pytest.approx(3600)
    assert proposal.chosen.precision == 1.0
    assert proposal.chosen.recall == pytest.approx(100 / 275, abs=0.01)
    assert not proposal.biased


@given(st.lists(st.floats(1, 5), min_size=1, max_size=200), st.integers(1, 50), st.floats(1, 1e6))
def test_a_proposal_never_asks_for_more_than_people_can_take(
    qualities: list[float], reviewers: int, images_a_day: float
) -> None:
    proposal = propose([Scored(quality) for quality in qualities], Capacity(reviewers, 6, 5), images_a_day)
    assert proposal.chosen.items_a_day <= proposal.budget_a_day * (1 + 1e-9)
    assert [trade.threshold for trade in proposal.trades] == sorted(trade.threshold for trade in proposal.trades)
    assert [trade.share for trade in proposal.trades] == sorted(trade.share for trade in proposal.trades)
    assert proposal.chosen in proposal.trades
    assert proposal.chosen.recall is None


def test_recall_rises_with_volume_and_knowledge_of_low_scores_alone_is_called_biased() -> None:
    trades = propose(stream(), Capacity(1, 6, 5), 10_000).trades
    recalls = [trade.recall for trade in trades if trade.recall is not None]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0
    only_low = [Scored(s.quality, s.bad if s.quality < 2.5 else None) for s in stream()]
    assert propose(only_low, Capacity(1, 6, 5), 10_000).biased


def test_nothing_is_proposed_from_nothing() -> None:
    with pytest.raises(CapacityError, match="no verdicts"):
        propose([], Capacity(1, 6, 5), 100)
    with pytest.raises(CapacityError, match="more than 0"):
        propose(stream(), Capacity(1, 6, 5), 0)


def test_the_plot_is_an_image_that_says_what_is_proposed() -> None:
    from xml.etree import ElementTree

    for verdicts in (stream(), [Scored(2.0), Scored(3.0)]):
        proposal = propose(verdicts, Capacity(2, 5, 10), 36_000)
        svg = ElementTree.fromstring(plot(proposal))
        assert f"{proposal.chosen.threshold:.3f}" in svg.attrib["aria-label"]
        line = svg.find("{http://www.w3.org/2000/svg}polyline")
        assert line is not None
        for point in line.attrib["points"].split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= 720
            assert 0 <= y <= 420
