"""`sluice verify`: compares compiled engines with the reference."""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from trt_build.golden import count_golden, golden_images
from trt_build.parity import ParityReport, compare
from worker.cli import console
from worker.cli.build import RepositoryOption
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.extras import need
from worker.cli.options import ConfigOption, PolicyOption
from worker.html_report.pages import render
from worker.policy import load_policy
from worker.policy.place import present_policy
from worker.scoring.compiled import open_compiled
from worker.scoring.engine import Engine, EngineError
from worker.scoring.engine_record import EngineMismatch, EngineRecord
from worker.scoring.manifest import ParityLimits
from worker.scoring.model import Model, load_model
from worker.scoring.open_store import open_store
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.scoring.openvino_graph import computes_bf16
from worker.scoring.repository import DamagedEngine, Repository, Version
from worker.scoring.tensorrt_binding import BindingMissing
from worker.scoring.verification import PARITY_REPORT
from worker.settings import load_settings

app = typer.Typer(add_completion=False)

NAMED = 20
"""How many images the terminal lists; the report has all."""


@app.command()
def verify(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name, a manifest or a folder.")],
    repository: RepositoryOption,
    engine: Annotated[
        list[str] | None,
        typer.Option("--engine", metavar="NAME", help="An engine, such as openvino-int8. Default: all."),
    ] = None,
    reference: Annotated[
        Literal["torch", "openvino"] | None,
        typer.Option(
            help=(
                "The reference engine: it runs the model's own graph in the precision it was measured in. Default: "
                "torch if it is installed, else openvino."
            )
        ),
    ] = None,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images to compare on, each with degraded copies. Default: the samples."),
    ] = None,
    policy: PolicyOption = None,
    config: ConfigOption = None,
) -> None:
    """Compare the engines of a repository with the reference engine, and store the reports.

    Exit code: 0 when all passed, 1 when some did not or cannot run here, 2 when nothing was tried.
    """
    need("jinja2")
    settings = load_settings(config, os.environ)
    rules = load_policy(policy) if policy is not None else present_policy(settings)
    loaded = load_model(model, settings.s3)
    models = Repository(open_store(repository, settings.s3))
    version = Version(loaded.manifest.name, loaded.manifest.version)
    manifest = models.manifest(version)
    if manifest is None or manifest.digest != loaded.manifest.digest:
        raise UsageError(f"{models.where(version)} does not hold this model; add it with sluice build")
    records, problems = _chosen(models, version, engine)
    kind = reference or _best_reference()
    with closing(_reference(kind, loaded)) as expected:
        for record in records:
            name = record.target.name
            if name == "openvino-bf16" and not computes_bf16():
                problems.append(f"{name} was not compared: these CPUs do not support bf16")
                continue
            try:
                found = open_compiled(models, version, record.target, loaded, verified=False)
            except (BindingMissing, DamagedEngine, EngineError, EngineMismatch) as error:
                problems.append(f"{name} cannot run here, so it was not compared: {error}")
                continue
            with closing(found), _progress(name, count_golden(golden)) as advance:
                report = compare(
                    loaded,
                    expected,
                    found,
                    record,
                    golden_images(loaded.manifest.views, golden),
                    rules,
                    reference_name=f"{kind} {loaded.manifest.precision or 'fp32'}",
                    advance=advance,
                )
            limits = loaded.manifest.parity or ParityLimits()
            _tell(report, limits)
            page = _write(models, version, record, report, limits)
            console.out.print(f"report: {page}", markup=False, soft_wrap=True)
            if not report.passed:
                problems.append(_verdict(report))
    if problems:
        raise CommandFailed("\n".join(problems))


def _chosen(models: Repository, version: Version, names: list[str] | None) -> tuple[list[EngineRecord], list[str]]:
    """The engines to compare and, if all are compared, the problems of damaged ones."""
    sound, damaged = models.engines(version)
    records = {record.target.name: record for record in sound}
    problems = [str(error) for error in damaged]
    if unknown := [name for name in names or [] if name not in records]:
        there = f"existing engines: {', '.join(records) or 'none'}"
        raise UsageError("; ".join((f"no engine {', '.join(unknown)} in {models.where(version)}", there, *problems)))
    if names:
        return [records[name] for name in names], []
    if not records:
        raise UsageError("; ".join(problems) or f"{models.where(version)} has no engines; build some with sluice build")
    return list(records.values()), problems


def _best_reference() -> Literal["torch", "openvino"]:
    if find_spec("torch") is not None and find_spec("onnx") is not None:
        return "torch"
    console.err.print(
        "torch is not installed, so OpenVINO is the reference; that says little about an OpenVINO engine. For a "
        "better reference: pip install 'sluice[torch]'",
        markup=False,
        soft_wrap=True,
    )
    return "openvino"


def _reference(kind: Literal["openvino", "torch"], model: Model) -> Engine:
    precision = model.manifest.precision
    if kind == "openvino":
        if precision == "bf16" and not computes_bf16():
            raise UsageError(
                f"{model.manifest.name} was measured in bf16, which these CPUs do not support; --reference torch "
                "computes it, slowly"
            )
        return OpenVinoEngine(model, precision=precision or "f32")
    try:
        from worker.scoring.torch_engine import (
            TorchEngine,
        )  # imported here because torch is large and only this reference needs it
    except ImportError as error:
        raise UsageError(f"--reference torch needs torch ({error}); pip install 'sluice[torch]'") from error
    return TorchEngine(model, precision=precision or "fp32")


@contextmanager
def _progress(name: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar while a person watches; nothing in a pipe."""
    columns = (SpinnerColumn(), TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as progress:
        task = progress.add_task(name, total=total)
        yield lambda images: progress.advance(task, images)


def _tell(report: ParityReport, limits: ParityLimits) -> None:
    table = Table("measure", "found", "limit", "", title=f"{report.engine_name} beside {report.reference}")
    table.columns[1].justify = table.columns[2].justify = "right"
    for check in report.checks:
        found = "none" if check.found is None else f"{check.found:.5f}"
        table.add_row(check.name, found, f"{check.limit:g}", "[green]passed[/]" if check.passed else "[red]failed[/]")
    console.out.print(table)
    console.out.print(
        f"{len(report.images)} images: reference {report.reference_images_per_second:.1f}, engine "
        f"{report.engine_images_per_second:.1f} images/s"
    )
    moved = report.moved(limits)
    for image in moved[:NAMED]:
        routes = f", {image.reference_route} becomes {image.engine_route}" if image.flipped else ""
        console.out.print(
            f"  {console.printable(image.name)}: {image.reference:.3f} becomes {image.engine:.3f}{routes}",
            markup=False,
            soft_wrap=True,
        )
    if len(moved) > NAMED:
        console.out.print(f"  and {len(moved) - NAMED} more, in the report")


def _write(
    models: Repository, version: Version, record: EngineRecord, report: ParityReport, limits: ParityLimits
) -> str:
    moved = report.moved(limits)
    names = {image.name for image in moved}
    rest = [image for image in report.images if image.name not in names]
    page = render("trt_build", "parity.html.j2", report=report, moved=moved, rest=rest)
    address = models.write_report(version, record.target, "parity.html", page)
    # Last, because this report decides.
    models.write_report(version, record.target, PARITY_REPORT, report.model_dump_json(by_alias=True, indent=2) + "\n")
    return address


def _verdict(report: ParityReport) -> str:
    broken = ", ".join(check.name for check in report.checks if not check.passed)
    return f"{report.engine_name} does not match the reference: {broken}"
