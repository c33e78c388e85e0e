"""Cross-validation by prompt, and what is reported of it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from worker.model.data import Example
from worker.model.metrics import generator_means, plcc, srcc, srcc_interval, srcc_within

Predict = Callable[[NDArray[np.intp], NDArray[np.intp]], NDArray[np.float64]]
"""Trains on the first rows and predicts the second."""


@dataclass(frozen=True, slots=True)
class AgreementReport:
    """Agreement with people on images whose groups were left out of training."""

    dataset: str
    images: int
    srcc: float
    srcc_low: float
    srcc_high: float
    plcc: float
    rmse: float
    srcc_within_generator: float | None
    """None, as the baseline, for a data set of one generator."""
    baseline_srcc: float | None
    baseline_plcc: float | None

    def as_dict(self) -> dict[str, float | int | str | None]:
        return asdict(self)


def cross_validate(examples: Sequence[Example], folds: Sequence[int], predict: Predict) -> NDArray[np.float64]:
    """A prediction for each example, by a network that saw none of its fold."""
    parts = np.array(folds)
    predicted = np.empty(len(examples))
    for part in sorted(set(folds)):
        left_out = np.flatnonzero(parts == part)
        predicted[left_out] = predict(np.flatnonzero(parts != part), left_out)
    return predicted


def leave_generators_out(examples: Sequence[Example], folds: Sequence[int], predict: Predict) -> dict[str, float]:
    """For each generator the SRCC on its images of fold 0, by a network that saw neither it nor that fold's prompts.

    A generator without an image in fold 0 is left away.
    """
    generators, parts = np.array([example.generator for example in examples]), np.array(folds)
    human = np.array([example.score for example in examples])
    result = {}
    for name in sorted({example.generator for example in examples if example.generator != "camera"}):
        left_out = np.flatnonzero((generators == name) & (parts == 0))
        if not left_out.size:
            continue
        predicted = predict(np.flatnonzero((generators != name) & (parts != 0)), left_out)
        result[name] = srcc(predicted, human[left_out])
    return result


def report(
    dataset: str, examples: Sequence[Example], folds: Sequence[int], predicted: NDArray[np.float64], seed: int
) -> AgreementReport:
    """Figures for the examples of one data set."""
    rows = [index for index, example in enumerate(examples) if example.dataset == dataset]
    human = np.array([examples[row].score for row in rows])
    generators = [examples[row].generator for row in rows]
    several = len(set(generators)) > 1
    baseline = generator_means(human, generators, [folds[row] for row in rows])
    low, high = srcc_interval(predicted[rows], human, [examples[row].group for row in rows], seed)
    return AgreementReport(
        dataset=dataset,
        images=len(rows),
        srcc=srcc(predicted[rows], human),
        srcc_low=low,
        srcc_high=high,
        plcc=plcc(predicted[rows], human),
        rmse=float(np.sqrt(np.mean((predicted[rows] - human) ** 2))),
        srcc_within_generator=srcc_within(predicted[rows], human, generators) if several else None,
        baseline_srcc=srcc(baseline, human) if several else None,
        baseline_plcc=plcc(baseline, human) if several else None,
    )


def figure(value: float | None) -> str:
    """A figure for people; a dash for one that does not apply."""
    return "-" if value is None else f"{value:.3f}"
