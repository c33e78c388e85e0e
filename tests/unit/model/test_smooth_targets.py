"""Targets are drawn towards what images alike suggest, by scores that may be used alone."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs the extra `train`")
pytest.importorskip("scipy", reason="training needs the extra `train`")

from worker.model.data import Example
from worker.model.smooth import RIDGE, SHARE, Smoother
from worker.model.statistics import describe_maps

NUMBER = 24


def maps() -> np.ndarray:
    """Maps whose level tells the score, nearly."""
    draw = np.random.default_rng(5)
    level = np.linspace(-2, 2, NUMBER)[:, None, None, None, None]
    return (level + draw.normal(0, 0.3, (NUMBER, 5, 3, 7, 7))).astype(np.float16)


def examples(scores: np.ndarray) -> list[Example]:
    return [Example(Path(f"{i}.png"), float(score), "some", f"prompt {i // 3}", "g") for i, score in enumerate(scores)]


def test_a_target_is_half_foreseen_from_the_other_groups() -> None:
    scores = np.linspace(1, 5, NUMBER) + np.random.default_rng(1).normal(0, 0.2, NUMBER)
    smoother = Smoother(describe_maps(maps()), examples(scores))
    rows = np.arange(NUMBER)
    targets = smoother.targets(rows)

    for first in range(0, NUMBER, 3):
        own, others = rows[first : first + 3], np.setdiff1d(rows, rows[first : first + 3])
        matrix = smoother._kernel[np.ix_(others, others)] + RIDGE * np.eye(len(others))
        dual = np.linalg.solve(matrix, scores[others] - scores.mean())
        foreseen = smoother._kernel[np.ix_(own, others)] @ dual + scores.mean()
        np.testing.assert_allclose(targets[own], (1 - SHARE) * scores[own] + SHARE * foreseen, rtol=1e-4)


def test_scores_outside_the_rows_do_not_matter_and_get_no_target() -> None:
    scores = np.linspace(1, 5, NUMBER)
    changed = scores.copy()
    changed[18:] = 3
    rows = np.arange(18)
    one, other = (Smoother(describe_maps(maps()), examples(values)).targets(rows) for values in (scores, changed))
    np.testing.assert_array_equal(one, other)
    assert np.isnan(one[18:]).all()
    assert not np.isnan(one[:18]).any()
