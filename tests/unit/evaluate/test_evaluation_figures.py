from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from worker.model.data import DataError, Example
from worker.model.evaluation.evaluation import evaluate
from worker.model.evaluation.page import render
from worker.model.evaluation.statistics import (
    agreement,
    calibration,
    fit_logistic,
    generator_baseline,
    logistic,
    thresholds,
    within_generators,
)

RANDOM = np.random.default_rng(5)
HUMAN = RANDOM.uniform(1, 5, 300)


def examples(human: np.ndarray = HUMAN, generators: int = 3) -> list[Example]:
    return [
        Example(Path(f"{index}.png"), float(score), "mine", f"prompt {index // 3}", f"g{index % generators}")
        for index, score in enumerate(human)
    ]


def test_a_monotone_but_bent_judge_has_full_rank_and_after_the_logistic_full_linear_agreement() -> None:
    predicted = logistic(HUMAN, 4.0, 2.0, 3.0, 0.8)
    bent = 3 - 0.8 * np.log(2.0 / (predicted - 2.0 + 1e-12) - 1)  # its inverse, so the fit can undo it
    found = agreement(bent, predicted, [str(index) for index in range(300)], seed=1)

    assert found.srcc.value == pytest.approx(1)
    assert found.krcc.value == pytest.approx(1)
    assert found.plcc.value == pytest.approx(1, abs=1e-4)
    assert found.rmse.value < 0.01


def test_intervals_hold_the_value_and_widen_when_prompts_are_few() -> None:
    predicted = HUMAN + RANDOM.normal(0, 1, 300)
    alone = agreement(predicted, HUMAN, [str(index) for index in range(300)], seed=1)
    clustered = agreement(predicted, HUMAN, [str(index % 6) for index in range(300)], seed=1)

    assert alone.srcc.low < alone.srcc.value < alone.srcc.high
    assert agreement(predicted, HUMAN, [str(i) for i in range(300)], seed=1) == alone
    assert clustered.srcc.high != alone.srcc.high


def test_a_judge_that_says_one_thing_agrees_with_nobody_and_breaks_nothing() -> None:
    found = agreement(np.full(300, 3.0), HUMAN, ["x"] * 300, seed=1)

    assert [found.srcc.value, found.krcc.value, found.plcc.value] == pytest.approx([0, 0, 0], abs=1e-9)
    assert found.rmse.value == pytest.approx(HUMAN.std())


def test_a_falling_judge_keeps_its_sign() -> None:
    found = agreement(-HUMAN, HUMAN, [str(index) for index in range(300)], seed=1)
    assert found.srcc.value == pytest.approx(-1)


def test_the_logistic_is_never_worse_than_a_straight_line() -> None:
    predicted = HUMAN + RANDOM.normal(0, 0.2, 300)
    line = np.polynomial.Polynomial.fit(predicted, HUMAN, 1)(predicted)
    mapped = fit_logistic(predicted, HUMAN)(predicted)

    assert np.mean((mapped - HUMAN) ** 2) <= np.mean((line - HUMAN) ** 2) + 1e-12


def test_thresholds_count_what_they_catch_and_what_they_cost() -> None:
    human = np.array([1.0, 2.0, 3.0, 4.0])
    predicted = np.array([1.5, 3.5, 2.2, 4.5])
    low, middle, high = thresholds(predicted, human, 2.5, [1.0, 2.5, 4.0])

    assert (low.precision, low.recall, low.volume) == (None, 0, 0)
    assert (middle.precision, middle.recall, middle.volume) == (0.5, 0.5, 0.5)
    assert (high.precision, high.recall, high.volume) == (2 / 3, 1, 0.75)


def test_a_judge_that_knows_only_generators_matches_the_baseline_and_fails_within() -> None:
    level = np.array([2.0, 3.0, 4.0])[np.arange(300) % 3]
    human = level + RANDOM.normal(0, 0.3, 300)
    baseline = generator_baseline(examples(human), seed=1)
    found = evaluate(examples(human), level + RANDOM.normal(0, 0.01, 300), model="m 1", digest="sha256:0")

    assert baseline is not None
    assert baseline[0] == found.baseline_srcc == pytest.approx(found.agreement.srcc.value, abs=0.06)
    assert found.srcc_within_generator is not None
    assert abs(found.srcc_within_generator) < 0.2
    assert [entry.name for entry in found.generators] == ["g0", "g1", "g2"]


def test_generators_of_too_few_images_do_not_count_within_generators() -> None:
    names = ["a"] * 150 + ["b"] * 148 + ["c", "d"]
    assert within_generators(HUMAN, HUMAN, names) == pytest.approx(1)
    assert within_generators(HUMAN, HUMAN, ["a"] * 299 + ["b"]) is None


def test_calibration_bins_hold_all_images_in_order() -> None:
    bins = calibration(HUMAN + 0.5, HUMAN)

    assert sum(part.images for part in bins) == 300
    assert all(part.predicted - part.human == pytest.approx(0.5) for part in bins)
    assert [part.predicted for part in bins] == sorted(part.predicted for part in bins)


@pytest.mark.parametrize(("human", "message"), [(HUMAN[:3], "3 images"), (np.full(9, 2.0), "same human score")])
def test_what_says_nothing_is_refused(human: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        evaluate(examples(human), human, model="m", digest="d")


def test_the_page_shows_figures_plots_and_escapes_names() -> None:
    data = [
        Example(
            Path("<script>alert(1)</script>.png"), example.score, "m<b>", example.group, "<i>sd</i>" * (n % 2) or "x"
        )
        for n, example in enumerate(examples())
    ]
    page = render(
        evaluate(data, HUMAN, model="mst-lite 1", digest="sha256:ab"), datetime(2026, 1, 2, tzinfo=UTC), ("AGIQA-3K",)
    )

    assert page.count("<svg") == 3
    assert "1.000" in page
    assert "<script" not in page
    assert "&lt;i&gt;sd" in page
    assert "trained on AGIQA-3K" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
