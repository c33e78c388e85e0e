"""A training run: folds by prompt, then the heads that ship, taken up where it was interrupted."""

import hashlib
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch

from worker.model.data import DataError, Example, split_folds
from worker.model.evaluation.evaluation import Evaluation, evaluate
from worker.model.head_training.examples import Examples, Texts
from worker.model.head_training.fit import Epoch, Fitted, HeadsT, Recipe, fit, predict
from worker.model.head_training.heads import (
    TrainableHeads,
    TrainablePromptHead,
    gate_by_dimension,
    heads_of,
    prompt_head_of,
    streams,
)
from worker.scoring.engine import Features
from worker.scoring.manifest import ModelManifest, PromptScore
from worker.scoring.tensors import Array

CONFIG, CHECKPOINTS = "config.json", "checkpoints"


@dataclass(frozen=True, slots=True)
class Start:
    """The model that training starts from: its manifest, the folder of its files, and whether its fusion is kept."""

    manifest: ModelManifest
    folder: Path
    keep_fusion: bool

    def heads(self, seed: int) -> TrainableHeads:
        return heads_of(self.manifest, self.folder, fresh_seed=None if self.keep_fusion else seed)

    def prompt_head(self, seed: int) -> TrainablePromptHead:
        return prompt_head_of(self.manifest, self.folder, seed=seed, keep_fusion=self.keep_fusion)


@dataclass(frozen=True, slots=True)
class TrainingOutcome(Generic[HeadsT]):
    """What a run gave: figures on images whose prompts were left out, loss curves by fold, the gate, the heads."""

    evaluation: Evaluation
    curves: tuple[tuple[Epoch, ...], ...]
    gate: tuple[float, ...]
    final: Fitted[HeadsT]

    @property
    def seconds_per_epoch(self) -> float:
        """Of the final training, over all images; the median, since other programs may use the processor."""
        return statistics.median(epoch.seconds for epoch in self.final.epochs)


def train(
    start: Start,
    examples: Sequence[Example],
    features: Features,
    recipe: Recipe,
    folds: int,
    checkpoints: Path,
    advance: Callable[[], None] = lambda: None,
) -> TrainingOutcome[TrainableHeads]:
    """Trains fusion and template head for quality: once for each fold on the prompts of the others, and then on
    everything.

    With `recipe.patience`, each fold stops by the fold after it, which neither trains nor tests it, and the final heads
    train for the median of the folds' best numbers of epochs. Finished and interrupted parts are taken up from
    `checkpoints`. Raises DataError for fewer prompts than folds.
    """
    coarse, fine = streams(start.manifest, features)
    known = Examples(coarse, fine, torch.tensor([example.score for example in examples]))
    name = f"{start.manifest.name}, trained"
    return _train(start.heads, known, examples, name, start.manifest.digest, recipe, folds, checkpoints, advance)


def train_prompt_head(
    start: Start,
    score: PromptScore,
    examples: Sequence[Example],
    features: Features,
    text: Mapping[str, Array],
    recipe: Recipe,
    folds: int,
    checkpoints: Path,
    advance: Callable[[], None] = lambda: None,
) -> TrainingOutcome[TrainablePromptHead]:
    """Trains a prompt head for a score, as `train` does, on those examples that have a prompt and were rated for it.

    `text`: prompt → the features of its tokens. Raises DataError as `train`.
    """
    ratings = {row: given for row, example in enumerate(examples) if (given := rating(example, score)) is not None}
    rows = list(ratings)
    rated = [replace(examples[row], score=given) for row, given in ratings.items()]
    prompts = {prompt: number for number, prompt in enumerate(dict.fromkeys(example.prompt for example in rated))}
    coarse, fine = streams(start.manifest, {name: each[rows] for name, each in features.items()})
    known = Examples(
        coarse,
        fine,
        torch.tensor([example.score for example in rated]),
        Texts(
            [torch.from_numpy(text[prompt]) for prompt in prompts],
            torch.tensor([prompts[example.prompt] for example in rated]),
        ),
    )
    name = f"{start.manifest.name}, {score} beside a prompt, trained"
    return _train(start.prompt_head, known, rated, name, start.manifest.digest, recipe, folds, checkpoints, advance)


def rating(example: Example, score: PromptScore) -> float | None:
    """What people gave an image beside its prompt; None where it has none, or nobody said."""
    if not example.prompt:
        return None
    return example.score if score == "quality" else example.alignment


def check_folds(examples: Sequence[Example], recipe: Recipe, folds: int) -> None:
    """Raises DataError where the prompts do not part into so many folds."""
    least = 3 if recipe.patience is not None else 2
    groups = len({example.group for example in examples})
    if not least <= folds <= groups:
        raise DataError(f"{folds} folds of {groups} prompts; at least {least} folds, and as many prompts as folds")


def data_digest(examples: Sequence[Example]) -> str:
    """Identity of what a run learns from: which images, how large their files are, and all that is said of them."""
    rows = [(str(example.image), example.image.stat().st_size, *astuple(example)[1:]) for example in examples]
    return f"sha256:{hashlib.sha256(json.dumps(rows).encode()).hexdigest()}"


def _train(
    start: Callable[[int], HeadsT],
    everything: Examples,
    examples: Sequence[Example],
    name: str,
    digest: str,
    recipe: Recipe,
    folds: int,
    checkpoints: Path,
    advance: Callable[[], None],
) -> TrainingOutcome[HeadsT]:
    check_folds(examples, recipe, folds)
    parts = np.array(split_folds(examples, folds, recipe.seed))
    predicted = np.empty(len(examples))
    fitted = []
    for fold in range(folds):
        stopper = (fold + 1) % folds if recipe.patience is not None else None
        known = everything[np.flatnonzero((parts != fold) & (parts != stopper))]
        outcome = fit(
            start(recipe.seed),
            known,
            recipe,
            validation=None if stopper is None else everything[np.flatnonzero(parts == stopper)],
            checkpoint=checkpoints / f"fold{fold}.pt",
            advance=advance,
        )
        left_out = np.flatnonzero(parts == fold)
        predicted[left_out] = predict(outcome.heads, everything[left_out])
        fitted.append(outcome)
    epochs = round(statistics.median(outcome.best for outcome in fitted))
    whole = replace(recipe, epochs=max(1, epochs), patience=None)
    final = fit(start(recipe.seed), everything, whole, checkpoint=checkpoints / "final.pt", advance=advance)
    return TrainingOutcome(
        evaluate(examples, predicted, model=name, digest=digest, seed=recipe.seed),
        tuple(outcome.epochs for outcome in fitted),
        tuple(gate_by_dimension(final.heads.gff, everything.coarse, everything.fine)),
        final,
    )


def same_config(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the run in the folder was started with this configuration."""
    try:
        found = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return bool(found == json.loads(json.dumps(config)))
