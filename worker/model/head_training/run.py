"""A training run: folds by prompt, then the heads that ship, in a folder that tells all of it."""

import hashlib
import json
import shutil
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from worker.model.clip.export import heads_file
from worker.model.data import DataError, Example, split_folds
from worker.model.evaluation.evaluation import Evaluation, evaluate
from worker.model.head_training.fit import Epoch, Examples, Fitted, Recipe, fit, predict
from worker.model.head_training.heads import TrainableHeads, gate_by_dimension, heads_of, streams
from worker.scoring.engine import Features
from worker.scoring.manifest import MANIFEST_NAME, HeadsSpec, Measurement, ModelManifest

CONFIG, METRICS, REPORT, MODEL, CHECKPOINTS = "config.json", "metrics.json", "report.html", "model", "checkpoints"


@dataclass(frozen=True, slots=True)
class Start:
    """The model that training starts from: its manifest, the folder of its files, and whether its fusion is kept."""

    manifest: ModelManifest
    folder: Path
    keep_fusion: bool

    def heads(self, seed: int) -> TrainableHeads:
        return heads_of(self.manifest, self.folder, fresh_seed=None if self.keep_fusion else seed)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave: figures on images whose prompts were left out, loss curves by fold, the gate, the heads."""

    evaluation: Evaluation
    curves: tuple[tuple[Epoch, ...], ...]
    gate: tuple[float, ...]
    final: Fitted

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
) -> Outcome:
    """Trains once for each fold on the prompts of the others, and then on everything.

    With `recipe.patience`, each fold stops by the fold after it, which neither trains nor tests it, and the final heads
    train for the median of the folds' best numbers of epochs. Finished and interrupted parts are taken up from
    `checkpoints`. Raises DataError for fewer prompts than folds.
    """
    least = 3 if recipe.patience is not None else 2
    groups = len({example.group for example in examples})
    if not least <= folds <= groups:
        raise DataError(f"{folds} folds of {groups} prompts; at least {least} folds, and as many prompts as folds")
    coarse, fine = streams(start.manifest, features)
    everything = Examples(coarse, fine, torch.tensor([example.score for example in examples]))
    parts = np.array(split_folds(examples, folds, recipe.seed))
    predicted = np.empty(len(examples))
    fitted = []
    for fold in range(folds):
        stopper = (fold + 1) % folds if recipe.patience is not None else None
        known = everything[np.flatnonzero((parts != fold) & (parts != stopper))]
        outcome = fit(
            start.heads(recipe.seed),
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
    whole = Recipe(**{**asdict(recipe), "epochs": max(1, epochs), "patience": None})
    final = fit(start.heads(recipe.seed), everything, whole, checkpoint=checkpoints / "final.pt", advance=advance)
    name = f"{start.manifest.name}, trained"
    return Outcome(
        evaluate(examples, predicted, model=name, digest=start.manifest.digest, seed=recipe.seed),
        tuple(outcome.epochs for outcome in fitted),
        tuple(gate_by_dimension(final.heads, coarse, fine)),
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
) -> ModelManifest:
    """A model with the towers of `start` and these heads, as serving loads it."""
    folder.mkdir(parents=True, exist_ok=True)
    old = start.manifest
    graph = folder / old.graph.path
    graph.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(start.folder / old.graph.path, graph)
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
    manifest = ModelManifest.model_validate(old.model_copy(update=changes).model_dump(by_alias=True))
    (folder / MANIFEST_NAME).write_text(manifest.model_dump_json(by_alias=True, indent=2, exclude_none=True) + "\n")
    return manifest


def measurements(outcome: Outcome, folds: int, towers_trained_on: Sequence[str]) -> tuple[Measurement, ...]:
    """The run's figures as a manifest tells them, with what the towers had seen before: folds part heads only."""
    found = outcome.evaluation
    before = f"; heads only, the towers were trained on {', '.join(towers_trained_on)}" if towers_trained_on else ""
    return (
        Measurement(
            dataset=", ".join(found.datasets),
            protocol=f"{folds} folds, disjoint by prompt{before}",
            images=found.agreement.images,
            srcc=round(found.agreement.srcc.value, 4),
            plcc=round(found.agreement.plcc.value, 4),
            srcc_within_generator=found.srcc_within_generator and round(found.srcc_within_generator, 4),
        ),
    )


def metrics(outcome: Outcome, tower_seconds: float) -> dict[str, Any]:
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
