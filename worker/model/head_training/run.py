"""A training run: folds by prompt, then the heads that ship, in a folder that tells all of it."""

import hashlib
import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any, Generic

import numpy as np
import torch
from safetensors.torch import load_file

from worker.model.clip.export import heads_file
from worker.model.clip.export_prompt import HEADS as PROMPT_HEADS
from worker.model.clip.export_prompt import prompt_heads_file
from worker.model.clip.onnx_export import write_file
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
from worker.scoring.manifest import MANIFEST_NAME, HeadsSpec, Measurement, ModelManifest, PromptScore
from worker.scoring.tensors import Array

CONFIG, METRICS, REPORT, MODEL, CHECKPOINTS = "config.json", "metrics.json", "report.html", "model", "checkpoints"


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
class Outcome(Generic[HeadsT]):
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
) -> Outcome[TrainableHeads]:
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
) -> Outcome[TrainablePromptHead]:
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
) -> Outcome[HeadsT]:
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
    return Outcome(
        evaluate(examples, predicted, model=name, digest=digest, seed=recipe.seed),
        tuple(outcome.epochs for outcome in fitted),
        tuple(gate_by_dimension(final.heads.gff, everything.coarse, everything.fine)),
        final,
    )


def write_model(
    start: Start,
    heads: TrainableHeads,
    folder: Path,
    *,
    version: str,
    training_data: tuple[str, ...],
    quality: tuple[Measurement, ...] = (),
    prompts: Mapping[PromptScore, TrainablePromptHead] | None = None,
) -> ModelManifest:
    """A model with the towers of `start` and these heads, as serving loads it. Prompt heads that `start` has and
    `prompts` does not name stay as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    old = start.manifest
    for spec in old.files:
        if spec != old.heads:
            copy = folder / spec.path
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(start.folder / spec.path, copy)
    data = heads_file(heads.gff, heads.head)
    (folder / "heads.safetensors").write_bytes(data)
    made = HeadsSpec(
        path="heads.safetensors",
        sha256=hashlib.sha256(data).hexdigest(),
        type="gated_template",
        coarse=old.heads.coarse,
        fine=old.heads.fine,
    )
    changes = {"version": version, "heads": made, "training_data": training_data, "quality": quality}
    if prompts and old.prompt is not None:
        scores = (*old.prompt.scores, *(score for score in prompts if score not in old.prompt.scores))
        kept = {} if old.prompt.heads is None else load_file(folder / old.prompt.heads.path)
        written = prompt_heads_file({score: (each.gff, each.head) for score, each in prompts.items()}, kept)
        changes["prompt"] = old.prompt.model_copy(
            update={"heads": write_file(folder / PROMPT_HEADS, written), "scores": scores}
        )
    manifest = ModelManifest.model_validate(old.model_copy(update=changes).model_dump(by_alias=True))
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")
    return manifest


def measurements(
    outcome: Outcome[Any], folds: int, towers_trained_on: Sequence[str], score: PromptScore = "quality", name: str = ""
) -> tuple[Measurement, ...]:
    """The run's figures as a manifest tells them, with what the towers had seen before: folds part heads only. `name`:
    of what gave the score, where it is not the template head."""
    found = outcome.evaluation
    before = f"; heads only, the towers were trained on {', '.join(towers_trained_on)}" if towers_trained_on else ""
    return (
        Measurement(
            dataset=", ".join(found.datasets),
            protocol=f"{name}{folds} folds, disjoint by prompt{before}",
            score=score,
            images=found.agreement.images,
            srcc=round(found.agreement.srcc.value, 4),
            plcc=round(found.agreement.plcc.value, 4),
            srcc_within_generator=found.srcc_within_generator and round(found.srcc_within_generator, 4),
        ),
    )


def metrics(outcome: Outcome[Any], tower_seconds: float) -> dict[str, Any]:
    """For JSON. `tower_seconds`: what running the towers over all images takes."""
    return {
        **outcome.evaluation.as_dict(),
        "epochs": [[asdict(epoch) for epoch in curve] for curve in outcome.curves],
        "final_epochs": [asdict(epoch) for epoch in outcome.final.epochs],
        "gate": list(outcome.gate),
        "seconds_per_epoch": outcome.seconds_per_epoch,
        "seconds_of_towers_per_epoch": tower_seconds,
        "times_faster_than_running_towers": tower_seconds / outcome.seconds_per_epoch,
    }


def same_config(folder: Path, config: Mapping[str, Any]) -> bool:
    """Whether the run in the folder was started with this configuration."""
    try:
        found = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return False
    return bool(found == json.loads(json.dumps(config)))
