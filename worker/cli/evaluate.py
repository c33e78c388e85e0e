"""`sluice evaluate`: how well a model judges, measured against people."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.scoring.model import load_model
from worker.scoring.openvino_engine import OpenVinoEngine

if TYPE_CHECKING:
    from worker.model.evaluation.evaluation import Evaluation
    from worker.model.evaluation.statistics import Figure

app = typer.Typer(add_completion=False)

NEEDS = "needs SciPy: pip install 'sluice[train]'"

DataOption = Annotated[
    list[Path], typer.Option("--data", metavar="FILE|DIR", help="A CSV file or a data set's folder; may be repeated.")
]
ScaleOption = Annotated[
    str, typer.Option("--scale", metavar="LOW:HIGH", help="The scale of mos in CSV files, mapped to 1..5.")
]
SinglePromptsOption = Annotated[
    bool, typer.Option("--single-prompts", help="Take CSV files in which a prompt has one image only.")
]
CacheOption = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Where features are kept between runs.")
]


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name or the path of a manifest.")],
    data: DataOption,
    scale: ScaleOption = "1:5",
    low: Annotated[float, typer.Option("--low", help="People find an image low below this, 1..5.", min=1, max=5)] = 2.5,
    single_prompts: SinglePromptsOption = False,
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap and the folds.", min=0)] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write all figures.")] = None,
    report: Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML page.")] = None,
    cache: CacheOption = None,
) -> None:
    """Measure a model against people's scores: agreement, calibration, thresholds, generators.

    A CSV file has the columns image and mos and, where known, prompt and group (the generator). The folders of AGIQA-1K,
    AGIQA-3K, AIGCIQA2023, PKU-I2IQA and AIGIQA-20K are read as they are published.

    Exit code: 0, or 2 when the data or the model cannot be used.
    """
    modules = load_modules()
    loaded = load_model(model)
    examples = read_data(data, scale, single_prompts)
    with closing(OpenVinoEngine(loaded)) as engine, progress("features", len(examples)) as advance:
        try:
            features = modules.features.compute_features(
                loaded.manifest, engine, examples, cache or modules.features.default_cache(), advance
            )
        except modules.DataError as error:
            raise UsageError(str(error)) from error
    manifest = loaded.manifest
    try:
        found = modules.evaluation.evaluate(
            examples,
            modules.evaluation.judge(loaded.heads, features),
            model=f"{manifest.name} {manifest.version}",
            digest=manifest.digest,
            seed=seed,
            low=low,
        )
    except modules.DataError as error:
        raise UsageError(str(error)) from error
    for table in tables(found):
        console.out.print(table)
    if json_file is not None:
        write(json_file, json.dumps(found.as_dict(), indent=2, allow_nan=False) + "\n")
    if report is not None:
        write(report, modules.page.render(found, datetime.now(UTC), manifest.training_data))
        console.out.print(f"report: {report}", markup=False, soft_wrap=True)


class Modules:
    """What measuring needs beside serving's packages, loaded when a command that measures runs."""

    def __init__(self) -> None:
        try:
            from worker.model.data import DataError
            from worker.model.evaluation import datasets, evaluation, features, page
        except ImportError as error:
            raise UsageError(f"{NEEDS} ({error})") from error
        self.DataError: type[Exception] = DataError
        self.datasets: ModuleType = datasets
        self.evaluation: ModuleType = evaluation
        self.features: ModuleType = features
        self.page: ModuleType = page


def load_modules() -> Modules:
    """Raises UsageError, naming the extra to install."""
    return Modules()


def read_data(paths: list[Path], scale: str, single_prompts: bool) -> list[Any]:
    """The examples of all files and folders. Raises UsageError."""
    modules = load_modules()
    try:
        lowest, highest = map(float, scale.split(":"))
        if not lowest < highest:
            raise ValueError
    except ValueError:
        raise UsageError(f"--scale {scale}: expected LOW:HIGH, such as 1:5 or 0:100") from None
    try:
        return [
            example
            for path in paths
            for example in modules.datasets.read_examples(
                path, modules.datasets.Scale(lowest, highest), single_prompts=single_prompts
            )
        ]
    except modules.DataError as error:
        raise UsageError(str(error)) from error


@contextmanager
def progress(title: str, total: int) -> Iterator[Any]:
    """A bar while a person watches; nothing in a pipe. Gives the function that moves it on."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


def write(file: Path, text: str) -> None:
    """Writes a file and the folders above it. Raises CommandFailed."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandFailed(f"{file}: cannot be written: {error.strerror}") from error


def tables(found: "Evaluation") -> Iterator[Table]:
    """The figures as people read them in a terminal."""
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
    table = Table("below", "precision", "recall", "to review", title=f"low quality: people below {found.low:g}")
    for at in found.thresholds:
        shares = ("–" if value is None else f"{value:.0%}" for value in (at.precision, at.recall, at.volume))
        table.add_row(f"{at.threshold:.2f}", *shares)
    yield table
