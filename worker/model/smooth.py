"""Scores with some of the raters' noise taken out: half what people said, half what images alike suggest.

A kernel ridge regression on plain statistics of the maps foresees each image's score from the images of other groups;
the network then learns from the mean of the two (the lab notebook tells what it gains).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from worker.model.data import Example
from worker.model.statistics import Statistics

RIDGE = 0.3
WIDTH = 2.0
"""The kernel is exp(-WIDTH * squared distance / median squared distance)."""
SHARE = 0.5
"""How much of a target is foreseen."""

Array = NDArray[np.float64]


class Smoother:
    """Gives targets to learn from; made once for all images."""

    def __init__(self, statistics: Statistics, examples: Sequence[Example]) -> None:
        self._kernel = _kernel(_standardised(statistics))
        self._scores = np.array([example.score for example in examples])
        self._groups = np.array([f"{example.dataset}\0{example.group}" for example in examples])

    def targets(self, rows: NDArray[np.intp]) -> NDArray[np.float32]:
        """Targets of all images of which only these rows' may be used: no other score went into them."""
        scores, groups = self._scores[rows], self._groups[rows]
        matrix = self._kernel[np.ix_(rows, rows)] + RIDGE * np.eye(len(rows))
        inverse = cho_solve(cho_factor(matrix, lower=True), np.eye(len(rows)))
        dual = inverse @ (scores - scores.mean())
        foreseen = np.empty(len(rows))
        for group in np.unique(groups):
            own = np.flatnonzero(groups == group)
            # The residual of a prediction from all other groups, without fitting again: inv(K)_gg^-1 (inv(K) y)_g.
            foreseen[own] = scores[own] - np.linalg.solve(inverse[np.ix_(own, own)], dual[own])
        targets = np.full(len(self._scores), np.nan, np.float32)
        targets[rows] = (1 - SHARE) * scores + SHARE * foreseen
        return targets


def _standardised(statistics: Statistics) -> Statistics:
    deviation = statistics.std(axis=0)
    standardised: Statistics = (statistics - statistics.mean(axis=0)) / np.where(deviation > 0, deviation, 1)
    return standardised


def _kernel(points: Statistics) -> Array:
    squares = np.square(points).sum(axis=1, dtype=np.float64)
    distances = np.maximum(squares[:, None] + squares[None, :] - 2 * (points @ points.T), 0)
    kernel: Array = np.exp(-WIDTH * distances / np.median(distances))
    return kernel
