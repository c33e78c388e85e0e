"""`sluice train`: heads for a model, from human scores or from reviewers' decisions."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args

import typer
from pydantic import TypeAdapter, ValidationError

from schemas import Decision, ReviewItem
from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.evaluate import tables
from worker.cli.events import explain
from worker.cli.examples import CacheOption, ScaleOption, SinglePromptsOption, extra, progress, read_data, write
from worker.cli.lines import read_lines
from worker.scoring.manifest import ModelManifest, PromptScore, load_manifest
from worker.scoring.model import find_model, load_model
from worker.scoring.openvino_engine import OpenVinoEngine

if TYPE_CHECKING:
    from worker.model.data import Example
    from worker.model.head_training.fit import Recipe
    from worker.model.head_training.heads import TrainablePromptHead
    from worker.model.head_training.run import Outcome, Start

app = typer.Typer(add_completion=False)

Record = TypeVar("Record", Decision, ReviewItem)


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
    rate: Annotated[float, typer.Option("--rate", help="Adam's learning rate.", min=0)] = 5e-6,
    weight_decay: Annotated[float, typer.Option("--weight-decay", min=0)] = 1e-3,
    margin: Annotated[float, typer.Option("--margin", help="Of the ranking loss, in points.", min=0)] = 0.1,
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
    """Train fusion and heads of a model on its towers' features, which are computed once.

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
    with extra("train"):
        from worker.model.head_training.fit import Recipe
        from worker.model.head_training.run import Start, check_folds, data_digest
    load_model(model)  # every file of it is checked against its digest
    path = find_model(model)
    manifest = load_manifest(path)
    if data is not None:
        recipe = Recipe(
            epochs=epochs,
            batch=batch,
            rate=rate,
            weight_decay=weight_decay,
            margin=margin,
            patience=patience,
            seed=seed,
        )
        wanted = None if prompt_head is None else _known_scores(prompt_head)
        examples = read_data(data, scale, single_prompts)
        check_folds(examples, recipe, folds)
        scores = _prompt_scores(manifest, examples, wanted)
        config: dict[str, Any] = {"data": [str(file) for file in data], "content": data_digest(examples)}
        config |= {"scale": scale, "folds": folds, "keep_fusion": keep_fusion, "prompt_heads": scores}
        _prepare(to, {**config, "recipe": asdict(recipe), "model": manifest.digest}, resume)
        start = Start(manifest, path.parent, keep_fusion)
        _train(to, start, model, examples, recipe, folds, scores, version, cache)
        return
    if from_decisions is not None and items is not None:
        known = [manifest.digest, *(also_model or ())]
        _refresh(to, Start(manifest, path.parent, True), from_decisions, items, known, seed, version, resume)


def _train(
    to: Path,
    start: "Start",
    model: str,
    examples: "Sequence[Example]",
    recipe: "Recipe",
    folds: int,
    scores: list[PromptScore],
    version: str,
    cache: Path | None,
) -> None:
    from worker.model.evaluation.features import compute_features, default_cache, seconds_of_towers
    from worker.model.evaluation.text_features import compute_text
    from worker.model.head_training import report, run

    manifest = start.manifest
    loaded = load_model(model)
    with closing(OpenVinoEngine(loaded)) as engine:
        with progress("features", len(examples)) as advance:
            features = compute_features(manifest, engine, examples, cache or default_cache(), advance)
        towers = seconds_of_towers(manifest, engine, examples)
    (to / run.CHECKPOINTS).mkdir(exist_ok=True)
    with progress("epochs", (folds + 1) * recipe.epochs) as advance:
        outcome = run.train(start, examples, features, recipe, folds, to / run.CHECKPOINTS, advance)
    prompted: dict[PromptScore, Outcome[TrainablePromptHead]] = {}
    if scores and loaded.prompt is not None:
        texts = sorted({example.prompt for example in examples if example.prompt})
        with progress("prompts", len(texts)) as advance:
            text = compute_text(loaded.prompt, texts, cache or default_cache(), advance)
        for score in scores:
            checkpoints = to / run.CHECKPOINTS / score
            checkpoints.mkdir(exist_ok=True)
            with progress(f"epochs, {score}", (folds + 1) * recipe.epochs) as advance:
                prompted[score] = run.train_prompt_head(
                    start, score, examples, features, text, recipe, folds, checkpoints, advance
                )
    before = manifest.training_data
    training_data = tuple(dict.fromkeys((*before, *sorted({example.dataset for example in examples}))))
    made = run.write_model(
        start,
        outcome.final.heads,
        to / run.MODEL,
        version=version,
        training_data=training_data,
        quality=(
            *run.measurements(outcome, folds, before),
            *(
                measured
                for score, each in prompted.items()
                for measured in run.measurements(each, folds, before, score, f"prompt head, {score}: ")
            ),
        ),
        prompts={score: each.final.heads for score, each in prompted.items()},
    )
    # The figures are those of the folds' heads; the page and the metrics belong to the model that came of the run.
    judged = replace(outcome.evaluation, model=f"{made.name} {made.version}", digest=made.digest)
    outcome = replace(outcome, evaluation=judged)
    found = run.metrics(outcome, towers)
    found["prompt_heads"] = {score: run.metrics(each, towers) for score, each in prompted.items()}
    write(to / run.METRICS, json.dumps(found, indent=2, allow_nan=False) + "\n")
    write(to / run.REPORT, report.render(outcome, datetime.now(UTC), training_data, prompted))
    for table in tables(outcome.evaluation):
        console.out.print(table)
    for each in prompted.values():
        for table in tables(each.evaluation, thresholds=False):
            console.out.print(table)
    if before:
        _say(
            f"the towers were trained on {'; '.join(before)}: where those are among these images, the folds are new to "
            "the heads and not to the towers, and the figures flatter"
        )
    _say(
        f"an epoch took {outcome.seconds_per_epoch:.2f} s on features, running the towers would take {towers:.1f} s: "
        f"{found['times_faster_than_running_towers']:.0f} times as long"
    )
    _say(f"wrote {to / run.MODEL}: {made.name} {made.version}, {made.digest}")
    _say(f"report: {to / run.REPORT}")


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


def _refresh(
    to: Path,
    start: "Start",
    decisions: Path,
    items: Path,
    models: list[str],
    seed: int,
    version: str,
    resume: bool,
) -> None:
    from worker.model.head_training import run
    from worker.model.head_training.decisions import compare, gather, labels, refresh

    started = time.perf_counter()
    standing = labels(_read(decisions, Decision))
    decided, left_out = gather(start.manifest, _read(items, ReviewItem), standing, models)
    _prepare(to, {"decisions": str(decisions), "items": str(items), "models": models, "seed": seed}, resume)
    comparison = compare(start, decided, seed)
    heads = refresh(start, decided, seed)
    manifest = start.manifest
    made = run.write_model(
        start,
        heads,
        to / run.MODEL,
        version=version,
        training_data=(*manifest.training_data, f"{len(decided):,} decisions of reviewers"),
    )
    seconds = time.perf_counter() - started
    figures = {**asdict(comparison), "left_out": dict(left_out), "live": manifest.digest, "refreshed": made.digest}
    areas = {"live_area": comparison.live, "refreshed_area": comparison.refreshed, "seconds": seconds}
    write(to / run.METRICS, json.dumps({**figures, **areas}, indent=2) + "\n")
    for reason, number in left_out.items():
        console.err.print(f"left out: {number:,} items {reason}", markup=False)
    _say(
        f"{comparison.items:,} items, {comparison.approved:,} approved and {comparison.rejected:,} rejected. An "
        f"approved one scores above a rejected one: live {comparison.live:.1%}, refreshed {comparison.refreshed:.1%} "
        f"of pairs not learned from (gain {comparison.gain_low:+.1%} to {comparison.gain_high:+.1%}); scores moved by "
        f"{comparison.moved:.2f} points on average"
    )
    if comparison.gain_low <= 0:
        _say("the gain is not certain: gather more decisions before promoting this model")
    _say(f"wrote {to / run.MODEL} in {seconds:.1f} s: {made.name} {made.version}, {made.digest}")


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


def _read(file: Path, kind: type[Record]) -> Iterator[Record]:
    """The records of a file of JSON lines. Raises UsageError, naming the line."""
    for where, line in read_lines(file):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            raise UsageError(f"{where}: {explain(error)}") from error


def _say(text: str) -> None:
    console.out.print(text, markup=False, soft_wrap=True)
