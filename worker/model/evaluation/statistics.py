"""Agreement of predictions with human scores: the field's standard measures, calibration and thresholds."""

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import curve_fit
from scipy.stats import kendalltau

from worker.model.data import Example, split_folds
from worker.model.metrics import generator_means, plcc, srcc, srcc_within

Values = NDArray[np.float64]

BOOTSTRAP_DRAWS = 1000
FEWEST = 5
"""Minimum number of images for a separate figure."""
FOLDS = 5
BINS = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """SRCC and KRCC of the predictions; PLCC and RMSE after the logistic mapping to human scores."""

    images: int
    srcc: Figure
    krcc: Figure
    plcc: Figure
    rmse: Figure


@dataclass(frozen=True, slots=True)
class GeneratorFigures:
    """One generator's images: agreement among them, agreement on all other images, and the error on them of a logistic
    that was fitted to the others.
    """

    name: str
    images: int
    mean_human: float
    mean_predicted: float
    srcc: float
    srcc_without: float
    rmse_transferred: float


@dataclass(frozen=True, slots=True)
class Bin:
    """Images with similar predictions: their mean prediction and mean human score, both 1..5."""

    images: int
    predicted: float
    human: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """The effect of a threshold: predictions below it are called low. Precision: the share of these with a low human
    score (None if there are none). Recall: the share of images with a low human score that are called low. And the
    share of all images that is called low.
    """

    threshold: float
    precision: float | None
    recall: float | None
    volume: float


def logistic(x: Values, upper: float, lower: float, middle: float, width: float) -> Values:
    """The 4-parameter logistic of the VQEG (Final Report FR-TV Phase II, 2003)."""
    mapped: Values = (upper - lower) / (1 + np.exp(-np.clip((x - middle) / (abs(width) + 1e-9), -60, 60))) + lower
    return mapped


def fit_logistic(predicted: Values, human: Values) -> Callable[[Values], Values]:
    """Maps predictions to the human scale; a straight line if no logistic fits."""
    start = (human.max(), human.min(), float(np.median(predicted)), float(predicted.std()) / 2 or 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            parameters, _ = curve_fit(logistic, predicted, human, start, maxfev=4000)
        except (RuntimeError, ValueError, TypeError):
            parameters = None
    line = np.polynomial.Polynomial.fit(predicted, human, 1) if predicted.std() > 0 else None
    straight: Callable[[Values], Values] = (lambda x: np.full(len(x), human.mean())) if line is None else line
    if parameters is None or _rmse(logistic(predicted, *parameters), human) > _rmse(straight(predicted), human):
        return straight
    return lambda x: logistic(x, *parameters)


def agreement(predicted: Values, human: Values, groups: Sequence[str], seed: int) -> Agreement:
    """The four figures, with intervals that draw whole groups (prompts) with replacement.

    In a draw the logistic is the one fitted to all images, so intervals cover the sample, not the fit.
    """
    mapped = fit_logistic(predicted, human)(predicted)
    functions: dict[str, Callable[[Values, Values, Values], float]] = {
        "srcc": lambda p, _m, h: srcc(p, h),
        "krcc": lambda p, _m, h: _krcc(p, h),
        "plcc": lambda _p, m, h: plcc(m, h),
        "rmse": lambda _p, m, h: _rmse(m, h),
    }
    samples = draws(groups, seed)
    figures = {}
    for name, function in functions.items():
        drawn = [function(predicted[rows], mapped[rows], human[rows]) for rows in samples]
        low, high = np.quantile(drawn, (0.025, 0.975))
        figures[name] = Figure(function(predicted, mapped, human), float(low), float(high))
    return Agreement(len(human), **figures)


def by_generator(predicted: Values, human: Values, generators: Sequence[str]) -> list[GeneratorFigures]:
    """Figures of each generator with enough images, sorted by name; empty if there is only one generator."""
    names = np.array(generators)
    found = []
    for name in sorted(set(generators)):
        inside, outside = names == name, names != name
        if inside.sum() < FEWEST or outside.sum() < FEWEST:
            continue
        transferred = fit_logistic(predicted[outside], human[outside])(predicted[inside])
        found.append(
            GeneratorFigures(
                name,
                int(inside.sum()),
                float(human[inside].mean()),
                float(predicted[inside].mean()),
                srcc(predicted[inside], human[inside]),
                srcc(predicted[outside], human[outside]),
                _rmse(transferred, human[inside]),
            )
        )
    return found


def within_generators(predicted: Values, human: Values, generators: Sequence[str]) -> float | None:
    """Mean SRCC among the images of one generator, over those with enough of them; None where there is one only."""
    numbers = Counter(generators)
    rows = np.array([numbers[name] >= FEWEST for name in generators])
    known = [name for name in generators if numbers[name] >= FEWEST]
    return srcc_within(predicted[rows], human[rows], known) if len(set(known)) > 1 else None


def generator_baseline(examples: Sequence[Example], seed: int) -> tuple[float, float] | None:
    """SRCC and PLCC of giving each image its generator's mean score in the other folds; None with one generator."""
    generators = [example.generator for example in examples]
    if len(set(generators)) < 2:
        return None
    human = np.array([example.score for example in examples])
    means = generator_means(human, generators, split_folds(examples, FOLDS, seed))
    return srcc(means, human), plcc(means, human)


def calibration(predicted: Values, human: Values) -> list[Bin]:
    """Ten bins of equally many images, from the lowest prediction to the highest."""
    parts = np.array_split(np.argsort(predicted, kind="stable"), min(BINS, len(predicted)))
    return [Bin(len(rows), float(predicted[rows].mean()), float(human[rows].mean())) for rows in parts]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean distance of prediction and people over the bins, weighted by images."""
    return sum(part.images * abs(part.predicted - part.human) for part in bins) / sum(part.images for part in bins)


def thresholds(predicted: Values, human: Values, low: float, steps: Sequence[float]) -> list[Threshold]:
    """The effect of each threshold. Human scores below `low` count as low."""
    is_low = human < low
    found = []
    for step in steps:
        called = predicted < step
        both = int((called & is_low).sum())
        found.append(
            Threshold(
                float(step),
                both / int(called.sum()) if called.any() else None,
                both / int(is_low.sum()) if is_low.any() else None,
                float(called.mean()),
            )
        )
    return found


def _krcc(predicted: Values, human: Values) -> float:
    """Kendall's tau-b; 0 where either side is constant."""
    value = float(kendalltau(predicted, human).statistic)
    return value if np.isfinite(value) else 0.0


def _rmse(predicted: Values, human: Values) -> float:
    return float(np.sqrt(np.mean((predicted - human) ** 2)))


def draws(groups: Sequence[str], seed: int) -> list[NDArray[np.intp]]:
    """The rows of each bootstrap sample: whole groups, drawn with replacement, as many as there are."""
    random = np.random.default_rng(seed)
    names, member = np.unique(np.array(groups), return_inverse=True)
    rows = np.split(np.argsort(member, kind="stable"), np.cumsum(np.bincount(member))[:-1])
    return [
        np.concatenate([rows[index] for index in random.integers(len(names), size=len(names))])
        for _ in range(BOOTSTRAP_DRAWS)
    ]
