"""`sluice evaluate`: compares a model's scores with human scores."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from worker.cli import console
from worker.cli.examples import (
    CacheOption,
    DataOption,
    ScaleOption,
    SinglePromptsOption,
    progress,
    read_data,
    say,
    write,
)
from worker.cli.extras import extra, need
from worker.cli.options import ConfigOption
from worker.scoring.engine import Features
from worker.scoring.model import Model, load_model
from worker.scoring.opening import open_engine
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.settings import EngineSettings, Settings, load_settings

if TYPE_CHECKING:
    from worker.model.data import Example
    from worker.model.evaluation.evaluation import Evaluation
    from worker.model.evaluation.statistics import Figure

app = typer.Typer(add_completion=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or the path of a manifest.")],
    data: DataOption,
    scale: ScaleOption = "1:5",
    low: Annotated[
        float, typer.Option("--low", help="Human scores below this count as low quality, 1 to 5.", min=1, max=5)
    ] = 2.5,
    single_prompts: SinglePromptsOption = False,
    seed: Annotated[int, typer.Option("--seed", help="Random seed of the bootstrap and the folds.", min=0)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report.")] = None,
    cache: CacheOption = None,
    config: ConfigOption = None,
) -> None:
    """Compare a model's scores with human scores: agreement, calibration, thresholds, generators.

    A CSV file needs the columns image and mos (the human score). Optional columns: prompt, align (how well the image
    fits the prompt) and group (the generator). A model with a prompt head is given the prompts, and is also compared
    with align. The folders of AGIQA-1K, AGIQA-3K, AIGCIQA2023, PKU-I2IQA and AIGIQA-20K are read as they are published.

    If the settings have an `engine` (--config, SLUICE_ENGINE__BACKEND), that engine scores every image, as in serving.
    Otherwise OpenVINO does, and features are kept between runs.

    Exit code: 0, or 2 when the data or the model cannot be used.
    """
    need("jinja2")
    with extra("train"):
        from worker.model.evaluation.page import render
    settings = load_settings(config, os.environ).model_copy(update={"model": model})
    loaded = load_model(model, settings.s3)
    examples = read_data(data, scale, single_prompts)
    features = _features(settings, loaded, examples, cache)
    found, fits = _measure(loaded, examples, features, seed, low)
    trained_on, engine = loaded.manifest.training_data, _engine(settings)
    for table in (*tables(found), *(tables(fits, thresholds=False) if fits is not None else ())):
        console.out.print(table)
    say(f"engine: {', '.join(map(str, engine.values()))}")
    if trained_on:
        say(f"trained on: {'; '.join(trained_on)}")
    if json_file is not None:
        whole = {**found.as_dict(), "engine": engine, "correspondence": fits and fits.as_dict()}
        write(json_file, json.dumps(whole, indent=2, allow_nan=False) + "\n")
    if report is not None:
        write(report, render(found, datetime.now(UTC), trained_on, fits))
        say(f"report: {report}")


def _engine(settings: Settings) -> dict[str, Any]:
    """The engine that scores the images: the one in the settings, or OpenVINO."""
    if settings.engine == EngineSettings():
        return {"backend": "openvino"}
    return settings.engine.model_dump(mode="json", exclude_none=True)


def _features(settings: Settings, model: Model, examples: "Sequence[Example]", cache: Path | None) -> Features:
    """The engine's features of the examples, and of their prompts if the model uses prompts."""
    from worker.model.evaluation.features import compute_features, default_cache, run_engine
    from worker.model.evaluation.text_features import compute_text, with_prompts

    if settings.engine != EngineSettings():
        with closing(open_engine(settings, model)) as engine, progress("features", len(examples)) as advance:
            return run_engine(model.manifest, engine, examples, advance)
    kept = cache or default_cache()
    with closing(OpenVinoEngine(model)) as engine, progress("features", len(examples)) as advance:
        features = compute_features(model.manifest, engine, examples, kept, advance)
    prompt, prompts = model.judging_prompts, [example.prompt for example in examples]
    texts = sorted({text for text in prompts if text})
    if prompt is None or not texts:
        return features
    with progress("prompts", len(texts)) as advance:
        return with_prompts(prompt, features, prompts, compute_text(prompt, texts, kept, advance))


def _measure(
    model: Model, examples: "Sequence[Example]", features: Features, seed: int, low: float
) -> "tuple[Evaluation, Evaluation | None]":
    """The evaluations of quality and, if the model and the data have it, of correspondence."""
    from worker.model.evaluation.evaluation import evaluate as measure
    from worker.model.evaluation.evaluation import judge, judge_correspondence

    manifest = model.manifest
    title = f"{manifest.name} {manifest.version}"
    predicted = judge(model.heads, features)
    found = measure(examples, predicted, model=title, digest=manifest.digest, seed=seed, low=low)
    aligned = judge_correspondence(model.heads, features, examples)
    if aligned is None:
        return found, None
    name = f"{title}, correspondence,"
    return found, measure(*aligned, model=name, digest=manifest.digest, seed=seed, low=low)


def tables(found: "Evaluation", *, thresholds: bool = True) -> Iterator[Table]:
    """The figures as tables for a terminal; `thresholds`: also a table of quality thresholds."""
    overall = Table("", "value", "95 % interval", title=f"{found.model} on {found.agreement.images:,} images")
    for name in ("srcc", "krcc", "plcc", "rmse"):
        figure: Figure = getattr(found.agreement, name)
        overall.add_row(name.upper(), f"{figure.value:.3f}", f"{figure.low:.3f} to {figure.high:.3f}")
    if found.srcc_within_generator is not None:
        overall.add_row("SRCC within generator", f"{found.srcc_within_generator:.3f}", "")
        overall.add_row("generator-mean baseline, SRCC", f"{found.baseline_srcc:.3f}", "")
        overall.add_row("generator-mean baseline, PLCC", f"{found.baseline_plcc:.3f}", "")
    overall.add_row("distance from calibration", f"{found.calibration_error:.3f}", "")
    yield overall
    if found.generators:
        table = Table("generator", "images", "people", "model", "SRCC", "SRCC without it", "RMSE, left out")
        for entry in found.generators:
            table.add_row(
                console.printable(entry.name),
                f"{entry.images:,}",
                f"{entry.mean_human:.2f}",
                f"{entry.mean_predicted:.2f}",
                f"{entry.srcc:.3f}",
                f"{entry.srcc_without:.3f}",
                f"{entry.rmse_transferred:.3f}",
            )
        yield table
    if not thresholds:
        return
    table = Table("below", "precision", "recall", "to review", title=f"low quality: human score below {found.low:g}")
    for at in found.thresholds:
        shares = ("-" if value is None else f"{value:.0%}" for value in (at.precision, at.recall, at.volume))
        table.add_row(f"{at.threshold:.2f}", *shares)
    yield table
