"""`sluice build`: compiles a model's engines into a model repository."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, cast

import typer
from pydantic import TypeAdapter, ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from trt_build.build import BuildOutcome, EngineBuilder
from trt_build.compile import BuildOptions
from trt_build.golden import calibration_images
from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.extras import need
from worker.cli.options import ConfigOption
from worker.scoring.engine_record import Backend, BatchProfile, ComputeCapability, Target
from worker.scoring.model import find_model, load_model
from worker.scoring.open_store import open_store
from worker.scoring.precision import CpuPrecision, TorchPrecision
from worker.scoring.repository import Repository
from worker.settings import load_settings

app = typer.Typer(add_completion=False)

RepositoryOption = Annotated[
    str, typer.Option("--repository", metavar="DIR|S3", help="The model repository: a folder or s3://bucket/prefix.")
]


@app.command()
def build(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A shipped model's name, a manifest or a folder.")],
    repository: RepositoryOption,
    backend: Annotated[
        Backend,
        typer.Option(help="tensorrt-rtx and torch need no GPU; tensorrt builds for the GPU it runs on."),
    ] = "tensorrt-rtx",
    compute_capability: Annotated[
        list[str] | None,
        typer.Option("--compute-capability", metavar="X.Y[,X.Y…]", help="GPUs to build for. Default: this machine's."),
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "bf16", "int8", "fp8"] | None,
        typer.Option(
            help=(
                "Default: the precision that the model was measured in, else fp16 for TensorRT and bf16 for the "
                "others. int8 is not for torch. fp8 is only for TensorRT, from compute capability 8.9."
            )
        ),
    ] = None,
    batches: Annotated[
        str, typer.Option(metavar="MIN:BEST:MAX", help="Smallest, most common and largest batch size of a GPU engine.")
    ] = "1:16:64",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Images to calibrate int8 or fp8 with. Default: the samples that ship."),
    ] = None,
    version_compatible: Annotated[
        bool, typer.Option("--version-compatible", help="Make the engine run on later minor versions of TensorRT too.")
    ] = False,
    hardware_compatibility: Annotated[
        Literal["none", "ampere_plus", "same_compute_capability"],
        typer.Option(help="Make the engine run on other GPU types too, with some loss of speed (tensorrt)."),
    ] = "none",
    workspace: Annotated[
        int | None, typer.Option(min=1, metavar="MIB", help="Maximum memory that a layer may use.")
    ] = None,
    optimization_level: Annotated[int | None, typer.Option(min=0, max=5, help="How long to search (tensorrt).")] = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Build engines again that exist already.")] = False,
    config: ConfigOption = None,
) -> None:
    """Compile a model's towers into engines, and publish them in a model repository.

    Existing engines are kept, so an interrupted build continues where it stopped.

    Exit code: 0 when all engines exist, 1 when some failed, 2 when nothing was tried.
    """
    need("jinja2")
    settings = load_settings(config, os.environ)
    loaded = load_model(model, settings.s3)
    models = Repository(open_store(repository, settings.s3))
    _refuse_nonsense(backend, precision, compute_capability or [])
    options = BuildOptions(
        _profile(batches),
        version_compatible=version_compatible,
        hardware_compatibility=hardware_compatibility,
        workspace_bytes=None if workspace is None else workspace * 1024 * 1024,
        optimization_level=optimization_level,
    )
    capabilities = _capabilities(compute_capability or [])
    version = models.publish(find_model(model, settings.s3))
    builder = EngineBuilder(models, version, loaded)
    outcomes: list[BuildOutcome] = []
    quantised = precision in ("int8", "fp8")
    images = list(calibration_images(loaded.manifest.views, calibration)) if quantised else []
    with _progress() as show:
        if backend == "openvino":
            target = Target(backend="openvino", precision=precision or "bf16")
            outcomes.append(
                builder.build_openvino(
                    cast(CpuPrecision, precision or "bf16"),
                    images,
                    rebuild=rebuild,
                    progress=lambda done: show(target, "calibrating", done, len(images)),
                )
            )
        elif backend == "torch":
            lower = cast(TorchPrecision, precision or "bf16")
            outcomes += builder.build_torch(lower, capabilities, options.profile, rebuild=rebuild)
        else:
            lowered = precision or loaded.manifest.precision or "fp16"
            with _until_stopped(show) as going_on:
                outcomes += builder.build(
                    backend, lowered, capabilities, options, calibration=images, rebuild=rebuild, progress=going_on
                )
    console.out.print(_table(outcomes))
    console.out.print(f"model: {models.where(version)}", markup=False, soft_wrap=True)
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    if failed:
        raise CommandFailed("\n".join(f"{outcome.target.name}: {outcome.problem}" for outcome in failed))


def _refuse_nonsense(backend: Backend, precision: str | None, compute_capabilities: Sequence[str]) -> None:
    if backend == "openvino" and compute_capabilities:
        raise UsageError("--compute-capability is for GPUs; openvino builds for CPUs")
    if backend == "openvino" and precision in ("fp16", "fp8"):
        raise UsageError("openvino computes in fp32, bf16 or int8 on a CPU; leave --precision out for bf16")
    if backend == "torch" and precision in ("fp16", "int8", "fp8"):
        raise UsageError("torch computes in bf16 or fp32; leave --precision out for bf16")


def _profile(text: str) -> BatchProfile:
    try:
        smallest, best, largest = (int(part) for part in text.split(":"))
        return BatchProfile(smallest=smallest, best=best, largest=largest)
    except ValueError as error:
        raise UsageError(
            f"--batches {text!r}: give MIN:BEST:MAX, rising numbers from 1 to 4096, such as 1:16:64"
        ) from error


def _capabilities(texts: Sequence[str]) -> list[str]:
    capabilities = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    try:
        return list(dict.fromkeys(TypeAdapter(list[ComputeCapability]).validate_python(capabilities)))
    except ValidationError as error:
        raise UsageError(f"--compute-capability {','.join(texts)!r}: write it as NVIDIA does, 8.9 or 12.0") from error


Show = Callable[[Target, str, int, int], bool]


@contextmanager
def _until_stopped(show: Show) -> Iterator[Show]:
    """Shows progress. Returns False after Ctrl-C, so that the build stops.

    While TensorRT builds, Python code runs only in its callbacks, and TensorRT swallows exceptions from them: a
    KeyboardInterrupt would be lost, or would fail one engine only.
    """
    stopped = False

    def stop(_signal: int, _frame: object) -> None:
        nonlocal stopped
        stopped = True

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield lambda target, phase, done, steps: show(target, phase, done, steps) and not stopped
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _progress() -> Iterator[Show]:
    """One progress bar for each engine on a terminal; nothing in a pipe."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[engine]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as progress:
        tasks = {}

        def show(target: Target, phase: str, done: int, steps: int) -> bool:
            if target.name not in tasks:
                tasks[target.name] = progress.add_task("", engine=target.name)
            progress.update(tasks[target.name], description=phase.lower(), completed=done, total=steps)
            return True

        yield show


def _table(outcomes: Sequence[BuildOutcome]) -> Table:
    table = Table("engine", "", "version", "batches", "size", "time")
    for name in ("size", "time"):
        next(column for column in table.columns if column.header == name).justify = "right"
    styles = {"built": "green", "kept": "cyan", "failed": "red"}
    for outcome in outcomes:
        record = outcome.record
        status = f"[{styles[outcome.status]}]{outcome.status}[/]"
        if record is None:
            table.add_row(outcome.target.name, status)
            continue
        sizes = f"{record.profile.smallest}:{record.profile.best}:{record.profile.largest}"
        table.add_row(
            outcome.target.name,
            status,
            record.backend_version.partition("-")[0],
            sizes,
            f"{record.bytes / 1e6:.1f} MB",
            f"{record.build_seconds:.1f} s",
        )
    return table
