"""Evaluates one model on images with human scores."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from worker.model.data import DataError, Example
from worker.model.evaluation.statistics import (
    FEWEST,
    Agreement,
    Bin,
    GeneratorFigures,
    Threshold,
    Values,
    agreement,
    by_generator,
    calibration,
    calibration_error,
    generator_baseline,
    thresholds,
    within_generators,
)
from worker.scoring.engine import Features
from worker.scoring.heads import Heads

LOW = 2.5
"""Human scores below this count as low, on the scale 1 to 5: nearer to poor than to fair."""
STEPS = tuple(np.round(np.arange(1.25, 5.0, 0.25), 2).tolist())


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All figures; `predicted` and `human` are 1..5, in the order of the examples."""

    model: str
    digest: str
    datasets: tuple[str, ...]
    seed: int
    low: float
    agreement: Agreement
    srcc_within_generator: float | None
    baseline_srcc: float | None
    baseline_plcc: float | None
    generators: tuple[GeneratorFigures, ...]
    calibration: tuple[Bin, ...]
    calibration_error: float
    thresholds: tuple[Threshold, ...]
    predicted: Values
    human: Values
    names: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON; predictions image by image."""
        figures = {
            name: value
            for name in self.__dataclass_fields__
            if name not in ("predicted", "human", "names")
            for value in [_plain(getattr(self, name))]
        }
        rows = zip(self.names, self.predicted.tolist(), self.human.tolist(), strict=True)
        return {
            "schema": "sluice.evaluation/1",
            **figures,
            "images": [{"image": image, "predicted": predicted, "human": human} for image, predicted, human in rows],
        }


def judge(heads: Heads, features: Features) -> Values:
    """The quality that the heads give to each row."""
    return np.array([scores.quality for scores in heads.score(features)])


def judge_correspondence(
    heads: Heads, features: Features, examples: Sequence[Example]
) -> tuple[list[Example], Values] | None:
    """The examples with a human rating of the fit to their prompt, with that rating as their score, and the heads'
    predictions of it. None if there are too few or the model does not predict it.
    """
    pairs = [
        (replace(example, score=example.alignment), scores.correspondence)
        for example, scores in zip(examples, heads.score(features), strict=True)
        if example.alignment is not None and scores.correspondence is not None
    ]
    if len(pairs) < FEWEST:
        return None
    return [example for example, _ in pairs], np.array([judged for _, judged in pairs])


def evaluate(
    examples: Sequence[Example], predicted: Values, *, model: str, digest: str, seed: int = 1, low: float = LOW
) -> Evaluation:
    """Raises DataError if there are too few images, or all have the same score."""
    human = np.array([example.score for example in examples])
    if len(examples) < FEWEST:
        raise DataError(f"{len(examples)} images; an evaluation needs at least {FEWEST}")
    if human.std() == 0:
        raise DataError("all images have the same human score, so agreement cannot be computed")
    generators = [example.generator for example in examples]
    bins = calibration(predicted, human)
    baseline = generator_baseline(examples, seed)
    return Evaluation(
        model=model,
        digest=digest,
        datasets=tuple(sorted({example.dataset for example in examples})),
        seed=seed,
        low=low,
        agreement=agreement(predicted, human, [example.group for example in examples], seed),
        srcc_within_generator=within_generators(predicted, human, generators),
        baseline_srcc=baseline and baseline[0],
        baseline_plcc=baseline and baseline[1],
        generators=tuple(by_generator(predicted, human, generators)),
        calibration=tuple(bins),
        calibration_error=calibration_error(bins),
        thresholds=tuple(thresholds(predicted, human, low, STEPS)),
        predicted=predicted,
        human=human,
        names=tuple(str(example.image) for example in examples),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value
