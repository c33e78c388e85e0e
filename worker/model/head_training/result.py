"""What a training run leaves in its folder: a model that serving loads as it is, figures, and a page."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from worker.model.clip.export import heads_file
from worker.model.clip.export_prompt import HEADS as PROMPT_HEADS
from worker.model.clip.export_prompt import prompt_heads_file
from worker.model.clip.onnx_export import write_file
from worker.model.evaluation.evaluation import Evaluation
from worker.model.head_training import report
from worker.model.head_training.heads import TrainableHeads, TrainablePromptHead
from worker.model.head_training.run import Start, TrainingOutcome
from worker.scoring.manifest import MANIFEST_NAME, HeadsSpec, Measurement, ModelManifest, PromptScore

METRICS, REPORT, MODEL = "metrics.json", "report.html", "model"


@dataclass(frozen=True, slots=True)
class Trained:
    """What training on people's scores gave; `tower_seconds`: what running the towers over all images once takes."""

    quality: TrainingOutcome[TrainableHeads]
    prompted: Mapping[PromptScore, TrainingOutcome[TrainablePromptHead]]
    folds: int
    tower_seconds: float

    @property
    def times_faster(self) -> float:
        """How many epochs on features fit into one that would run the towers."""
        return self.tower_seconds / self.quality.seconds_per_epoch


@dataclass(frozen=True, slots=True)
class Written:
    """The model of a run, and the figures of its folds' heads under its name."""

    manifest: ModelManifest
    evaluation: Evaluation


def write_run(start: Start, trained: Trained, folder: Path, version: str, created_at: datetime) -> Written:
    """Model, metrics and page, in the run's folder. Raises OSError where they cannot be written."""
    before = start.manifest.training_data
    training_data = tuple(dict.fromkeys((*before, *trained.quality.evaluation.datasets)))
    quality = measurements(trained.quality, trained.folds, before)
    for score, each in trained.prompted.items():
        quality += measurements(each, trained.folds, before, score, f"prompt head, {score}: ")
    made = write_model(
        start,
        trained.quality.final.heads,
        folder / MODEL,
        version=version,
        training_data=training_data,
        quality=quality,
        prompts={score: each.final.heads for score, each in trained.prompted.items()},
    )
    # The figures are those of the folds' heads; the page and the metrics belong to the run's model.
    judged = replace(trained.quality.evaluation, model=f"{made.name} {made.version}", digest=made.digest)
    outcome = replace(trained.quality, evaluation=judged)
    found = metrics(outcome, trained.tower_seconds)
    found["prompt_heads"] = {score: metrics(each, trained.tower_seconds) for score, each in trained.prompted.items()}
    (folder / METRICS).write_text(json.dumps(found, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    page = report.render(outcome, created_at, training_data, trained.prompted)
    (folder / REPORT).write_text(page, encoding="utf-8")
    return Written(made, judged)


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
    outcome: TrainingOutcome[Any],
    folds: int,
    towers_trained_on: Sequence[str],
    score: PromptScore = "quality",
    name: str = "",
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


def metrics(outcome: TrainingOutcome[Any], tower_seconds: float) -> dict[str, Any]:
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
