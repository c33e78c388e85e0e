"""Agreement of predictions with human scores."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

Scores = NDArray[np.float64]


def plcc(predicted: Scores, human: Scores) -> float:
    """Pearson's linear correlation, without a logistic fit; 0 where either side is constant."""
    spread = float(np.std(predicted) * np.std(human))
    return float(np.mean((predicted - predicted.mean()) * (human - human.mean())) / spread) if spread > 0 else 0.0


def srcc(predicted: Scores, human: Scores) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 where either side is constant."""
    return plcc(rankdata(predicted), rankdata(human))


def srcc_within(predicted: Scores, human: Scores, generators: Sequence[str]) -> float:
    """Mean over generators of the rank correlation among the images of one generator."""
    names = np.array(generators)
    return float(np.mean([srcc(predicted[names == name], human[names == name]) for name in sorted(set(generators))]))


def generator_means(human: Scores, generators: Sequence[str], folds: Sequence[int]) -> Scores:
    """The baseline that looks at no image: each gets the mean score of its generator in the other folds."""
    names, parts = np.array(generators), np.array(folds)
    predicted = np.empty_like(human)
    for name in set(generators):
        for part in set(folds):
            others = (names == name) & (parts != part)
            predicted[(names == name) & (parts == part)] = human[others].mean() if others.any() else human.mean()
    return predicted


def srcc_interval(predicted: Scores, human: Scores, groups: Sequence[str], seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of the rank correlation, drawing whole groups with replacement, 1,000 times."""
    random = np.random.default_rng(seed)
    names = np.array(groups)
    rows = [np.flatnonzero(names == name) for name in sorted(set(groups))]
    draws = []
    for _ in range(1000):
        drawn = np.concatenate([rows[index] for index in random.integers(len(rows), size=len(rows))])
        draws.append(srcc(predicted[drawn], human[drawn]))
    low, high = np.quantile(draws, (0.025, 0.975))
    return float(low), float(high)
