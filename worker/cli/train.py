"""`sluice train`: trains a model's heads on human scores or on reviewers' decisions."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from worker.cli.errors import UsageError
from worker.cli.examples import CacheOption, ScaleOption, SinglePromptsOption, read_data, write
from worker.cli.extras import extra, need
from worker.cli.train_decisions import gather_decisions, refresh_heads
from worker.cli.train_scores import Plan, train_on_scores
from worker.scoring.manifest import ModelManifest, PromptScore
from worker.scoring.model import find_model, load_model
from worker.settings import load_settings

if TYPE_CHECKING:
    from worker.model.data import Example

app = typer.Typer(add_completion=False)


@app.command()
def train(
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder for the run.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="FILE|DIR", help="CSV files, or folders of data sets.")
    ] = None,
    from_decisions: Annotated[
        Path | None, typer.Option("--from-decisions", metavar="FILE", help="Decisions, as JSON lines.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE", help="The review items of those decisions, as JSON lines.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="The model whose towers and anchors are used.")
    ] = "mst-lite",
    also_model: Annotated[
        list[str] | None,
        typer.Option(
            "--also-model", metavar="DIGEST", help="Also use items of this model, which must have the same towers."
        ),
    ] = None,
    keep_fusion: Annotated[
        bool, typer.Option("--keep-fusion", help="Start from the model's fusion instead of a random one.")
    ] = False,
    scale: ScaleOption = "1:5",
    single_prompts: SinglePromptsOption = False,
    folds: Annotated[
        int, typer.Option("--folds", help="Number of folds for cross-validation, split by prompt.", min=2)
    ] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 20,
    batch: Annotated[int, typer.Option("--batch", min=2)] = 8,
    rate: Annotated[float, typer.Option("--rate", help="Learning rate (Adam).", min=0, max=1)] = 5e-6,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, max=1)] = 1e-3,
    margin: Annotated[
        float, typer.Option("--margin", help="Margin of the ranking loss, in points.", min=0, max=4)
    ] = 0.1,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after this many epochs without a better result.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    prompt_head: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-head",
            metavar="quality|correspondence",
            help="Train a prompt head that predicts this. Repeatable. Default: correspondence, if the data have it.",
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Of the model, in its manifest.")] = "trained",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder.")] = False,
    cache: CacheOption = None,
) -> None:
    """Train the fusion and heads of a model on the features of its frozen towers.

    With --data: prompts are split into folds. Each fold is scored by heads trained on the others, and the final heads
    are trained on all data. Loss and schedule are those of the MST-CLIPIQA paper.

    With --from-decisions and --items: the model's heads are adjusted to agree with reviewers, and compared with the
    original heads.

    A model with a text tower (made by `sluice model new` or `import`) also learns correspondence, if the data have the
    column align (how well an image fits its prompt). --prompt-head chooses what its prompt heads predict.

    The folder gets the configuration, figures, plots and, in model/, a model that can be served.

    Exit code: 0, or 2 when data, model or folder cannot be used.
    """
    if (data is None) == (from_decisions is None):
        raise UsageError("give either --data or --from-decisions with --items")
    if (from_decisions is None) != (items is None):
        raise UsageError("--from-decisions needs --items, and --items needs --from-decisions")
    need("jinja2")
    with extra("train"):
        from worker.model.head_training.fit import Recipe
        from worker.model.head_training.run import Start, check_folds, data_digest
    s3 = load_settings(None, os.environ).s3
    loaded = load_model(model, s3)  # every file of it is checked against its digest
    manifest, files = loaded.manifest, find_model(model, s3).parent
    if from_decisions is not None and items is not None:
        start, models = Start(manifest, files, keep_fusion=True), [manifest.digest, *(also_model or ())]
        gathered = gather_decisions(start, from_decisions, items, models)
        _prepare(to, {"decisions": str(from_decisions), "items": str(items), "models": models, "seed": seed}, resume)
        refresh_heads(start, gathered, seed, to, version)
        return
    wanted = None if prompt_head is None else _known_scores(prompt_head)
    recipe = Recipe(epochs, batch, rate, weight_decay, margin, patience=patience, seed=seed)
    examples = read_data(data or [], scale, single_prompts)
    check_folds(examples, recipe, folds)
    scores = _prompt_scores(manifest, examples, wanted)
    config: dict[str, Any] = {"data": [str(file) for file in data or ()], "content": data_digest(examples)}
    config |= {"scale": scale, "folds": folds, "keep_fusion": keep_fusion, "prompt_heads": scores}
    _prepare(to, {**config, "recipe": asdict(recipe), "model": manifest.digest}, resume)
    plan = Plan(Start(manifest, files, keep_fusion), examples, recipe, folds, scores)
    train_on_scores(plan, loaded, to, version, cache)


def _known_scores(names: list[str]) -> list[PromptScore]:
    try:
        return TypeAdapter(list[PromptScore]).validate_python(names)
    except ValidationError as error:
        known = " or ".join(get_args(PromptScore))
        raise UsageError(f"--prompt-head {' '.join(names)}: a prompt head predicts {known}") from error


def _prompt_scores(
    manifest: ModelManifest, examples: "Sequence[Example]", wanted: list[PromptScore] | None
) -> list[PromptScore]:
    """The scores for which prompt heads are trained. Raises UsageError if the model or the data do not allow one."""
    from worker.model.head_training.run import rating

    def is_rated(score: PromptScore) -> bool:
        return any(rating(example, score) is not None for example in examples)

    if wanted is None:
        return ["correspondence"] if manifest.prompt is not None and is_rated("correspondence") else []
    if manifest.prompt is None:
        raise UsageError(
            f"{manifest.name} has no text tower, so it cannot have a prompt head; use a model made by sluice "
            "model new or import"
        )
    for score in wanted:
        if not is_rated(score):
            needs = "a prompt" if score == "quality" else "a prompt and a value in the column align"
            raise UsageError(f"no image of the data has {needs}; a prompt head for {score} needs it")
    return list(dict.fromkeys(wanted))


def _prepare(folder: Path, config: Mapping[str, Any], resume: bool) -> None:
    """Prepares the run's folder and writes its configuration. Raises UsageError if it holds another run."""
    from worker.model.head_training.run import CONFIG, same_config

    if (folder / CONFIG).exists():
        if not resume:
            raise UsageError(f"{folder}: already holds a run; continue it with --resume, or use another folder")
        if not same_config(folder, config):
            raise UsageError(
                f"{folder}: the run in it has another configuration ({folder / CONFIG}); use another folder"
            )
        return
    write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
