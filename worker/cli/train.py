"""`sluice train`: heads for a model, from human scores or from reviewers' decisions."""

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
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="Folder of the run.")],
    data: Annotated[
        list[Path] | None, typer.Option("--data", metavar="FILE|DIR", help="CSV files or data sets' folders.")
    ] = None,
    from_decisions: Annotated[
        Path | None, typer.Option("--from-decisions", metavar="FILE", help="Decisions, one JSON a line.")
    ] = None,
    items: Annotated[
        Path | None, typer.Option("--items", metavar="FILE", help="The review items decided on, one JSON a line.")
    ] = None,
    model: Annotated[
        str, typer.Option("--model", metavar="NAME|FILE", help="Whose towers and anchors to use.")
    ] = "mst-lite",
    also_model: Annotated[
        list[str] | None,
        typer.Option("--also-model", metavar="DIGEST", help="Take items of this model too: it has the same towers."),
    ] = None,
    keep_fusion: Annotated[
        bool, typer.Option("--keep-fusion", help="Start from the model's fusion instead of a random one.")
    ] = False,
    scale: ScaleOption = "1:5",
    single_prompts: SinglePromptsOption = False,
    folds: Annotated[int, typer.Option("--folds", help="Parts to split the prompts into.", min=2)] = 5,
    epochs: Annotated[int, typer.Option("--epochs", min=1)] = 20,
    batch: Annotated[int, typer.Option("--batch", min=2)] = 8,
    rate: Annotated[float, typer.Option("--rate", help="Adam's learning rate.", min=0, max=1)] = 5e-6,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0, max=1)] = 1e-3,
    margin: Annotated[float, typer.Option("--margin", help="Of the ranking loss, in points.", min=0, max=4)] = 0.1,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after so many epochs without a better fold.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 1,
    prompt_head: Annotated[
        list[str] | None,
        typer.Option(
            "--prompt-head",
            metavar="quality|correspondence",
            help="Train a prompt head for this; may be repeated. Absent: correspondence, where the data tell it.",
        ),
    ] = None,
    version: Annotated[str, typer.Option("--version", help="Of the model, in its manifest.")] = "trained",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    cache: CacheOption = None,
) -> None:
    """Train the fusion and heads of a model on its towers' features, which are computed once.

    With --data, prompts are split into folds, each is judged by heads that never saw it, and the final heads learn from
    everything; loss and schedule are those of the MST-CLIPIQA paper. With --from-decisions and --items, the model's own
    heads are moved to agree with reviewers, and measured beside the ones they come from. A model with a text tower (of
    `sluice model new` or `import`) learns correspondence too, where the data say how well images fit their prompts
    (column align); --prompt-head names what its prompt heads are to learn. The folder then holds the
    configuration, figures, plots and, in model/, a model that serving loads.

    Exit code: 0, or 2 when data, model or folder cannot be used.
    """
    if (data is None) == (from_decisions is None):
        raise UsageError("give either --data or --from-decisions with --items")
    if (from_decisions is None) != (items is None):
        raise UsageError("--from-decisions and --items belong together")
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
        raise UsageError(f"--prompt-head {' '.join(names)}: a prompt head tells {known}") from error


def _prompt_scores(
    manifest: ModelManifest, examples: "Sequence[Example]", wanted: list[PromptScore] | None
) -> list[PromptScore]:
    """What prompt heads are to be trained for. Raises UsageError for what model or data do not allow."""
    from worker.model.head_training.run import rating

    def is_rated(score: PromptScore) -> bool:
        return any(rating(example, score) is not None for example in examples)

    if wanted is None:
        return ["correspondence"] if manifest.prompt is not None and is_rated("correspondence") else []
    if manifest.prompt is None:
        raise UsageError(
            f"{manifest.name} has no text tower, so no prompt head; train a model of sluice model new or import"
        )
    for score in wanted:
        if not is_rated(score):
            needs = "a prompt" if score == "quality" else "a prompt and align, how well it fits it"
            raise UsageError(f"no image of the data has {needs}, which a prompt head for {score} learns from")
    return list(dict.fromkeys(wanted))


def _prepare(folder: Path, config: Mapping[str, Any], resume: bool) -> None:
    """The run's folder with its configuration. Raises UsageError where another run lies in it."""
    from worker.model.head_training.run import CONFIG, same_config

    if (folder / CONFIG).exists():
        if not resume:
            raise UsageError(f"{folder}: holds a run already; --resume goes on with it, or name another folder")
        if not same_config(folder, config):
            raise UsageError(
                f"{folder}: the run in it has another configuration ({folder / CONFIG}); name another folder"
            )
        return
    write(folder / CONFIG, json.dumps(config, indent=2) + "\n")
