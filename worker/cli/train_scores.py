"""`sluice train --data`: trains heads on human scores."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from worker.cli import console
from worker.cli.errors import CommandFailed
from worker.cli.evaluate import tables
from worker.cli.examples import progress, say
from worker.scoring.engine import Features
from worker.scoring.manifest import PromptScore
from worker.scoring.model import Model, PromptParts
from worker.scoring.openvino_engine import OpenVinoEngine

if TYPE_CHECKING:
    from worker.model.data import Example
    from worker.model.head_training.fit import Recipe
    from worker.model.head_training.heads import TrainablePromptHead
    from worker.model.head_training.result import Trained, Written
    from worker.model.head_training.run import Start, TrainingOutcome


@dataclass(frozen=True, slots=True)
class Plan:
    """What to train and on which data; `scores`: what prompt heads predict."""

    start: "Start"
    examples: "Sequence[Example]"
    recipe: "Recipe"
    folds: int
    scores: Sequence[PromptScore]


def train_on_scores(plan: Plan, model: Model, to: Path, version: str, cache: Path | None) -> None:
    """Trains, writes the run into its folder and prints a summary. Raises DataError, EngineError and CommandFailed."""
    from worker.model.evaluation.features import compute_features, default_cache, seconds_of_towers
    from worker.model.head_training.result import Trained, write_run
    from worker.model.head_training.run import CHECKPOINTS, train

    kept = cache or default_cache()
    manifest = model.manifest
    with closing(OpenVinoEngine(model)) as engine:
        with progress("features", len(plan.examples)) as advance:
            features = compute_features(manifest, engine, plan.examples, kept, advance)
        tower_seconds = seconds_of_towers(manifest, engine, plan.examples)
    checkpoints = to / CHECKPOINTS
    checkpoints.mkdir(exist_ok=True)
    with _epochs("epochs", plan) as advance:
        outcome = train(plan.start, plan.examples, features, plan.recipe, plan.folds, checkpoints, advance)
    prompted = {} if model.prompt is None else _train_prompt_heads(plan, model.prompt, features, checkpoints, kept)
    trained = Trained(outcome, prompted, plan.folds, tower_seconds)
    try:
        written = write_run(plan.start, trained, to, version, datetime.now(UTC))
    except OSError as error:
        raise CommandFailed(f"{error.filename or to}: cannot be written: {error.strerror}") from error
    _tell(trained, written, to, manifest.training_data)


def _train_prompt_heads(
    plan: Plan, prompt: PromptParts, features: Features, checkpoints: Path, cache: Path
) -> "Mapping[PromptScore, TrainingOutcome[TrainablePromptHead]]":
    from worker.model.evaluation.text_features import compute_text
    from worker.model.head_training.run import train_prompt_head

    if not plan.scores:
        return {}
    texts = sorted({example.prompt for example in plan.examples if example.prompt})
    with progress("prompts", len(texts)) as advance:
        text = compute_text(prompt, texts, cache, advance)
    prompted = {}
    for score in plan.scores:
        (folder := checkpoints / score).mkdir(exist_ok=True)
        with _epochs(f"epochs, {score}", plan) as advance:
            prompted[score] = train_prompt_head(
                plan.start, score, plan.examples, features, text, plan.recipe, plan.folds, folder, advance
            )
    return prompted


def _epochs(title: str, plan: Plan) -> AbstractContextManager[Callable[[], None]]:
    return progress(title, (plan.folds + 1) * plan.recipe.epochs)


def _tell(trained: "Trained", written: "Written", to: Path, before: Sequence[str]) -> None:
    """`before`: what the towers were trained on."""
    from worker.model.head_training.result import MODEL, REPORT

    for table in tables(written.evaluation):
        console.out.print(table)
    for each in trained.prompted.values():
        for table in tables(each.evaluation, thresholds=False):
            console.out.print(table)
    if before:
        say(
            f"the towers were trained on {'; '.join(before)}: if those images are in this data too, the towers "
            "have seen the test folds, and the figures are too good"
        )
    say(
        f"an epoch took {trained.quality.seconds_per_epoch:.2f} s on features, running the towers would take "
        f"{trained.tower_seconds:.1f} s: {trained.times_faster:.0f} times as long"
    )
    made = written.manifest
    say(f"wrote {to / MODEL}: {made.name} {made.version}, {made.digest}")
    say(f"report: {to / REPORT}")
