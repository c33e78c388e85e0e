"""`sluice score`: scores files, folders, globs and `s3://` prefixes, without a stream."""

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from worker.cli import console
from worker.cli.buckets import object_lister
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.events import EventMaker
from worker.cli.extras import need
from worker.cli.options import ConfigOption, ModelOption, PolicyOption
from worker.cli.scorer import Result, Scorer
from worker.cli.sources import Sources
from worker.demo.report.entry import ReportEntry
from worker.demo.report.tally import Tally
from worker.images.decode import DecodeLimits
from worker.images.decoder_pool import DecoderPool
from worker.images.fetch import build_fetcher
from worker.images.provenance.reader import open_reader
from worker.policy import Policy
from worker.policy.place import present_policy
from worker.scoring.manifest import ModelManifest
from worker.scoring.model import load_model
from worker.scoring.opening import open_engine
from worker.settings import FileSettings, Settings, load_settings
from worker.settings.image_format import ImageFormat

app = typer.Typer(add_completion=False)

KEPT = 300
"""How many images a report shows, worst first."""

LISTED = 20
"""How many images the table lists."""


@app.command()
def score(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Files, folders, globs, s3://bucket/prefix or https://…")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write one JSON line per image; - is stdout.")
    ] = None,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write an HTML report with thumbnails.")
    ] = None,
    policy: PolicyOption = None,
    model: ModelOption = None,
    tenant: Annotated[str, typer.Option("--tenant", help="The tenant, for policies that read it.")] = "default",
    prompt: Annotated[
        str | None,
        typer.Option("--prompt", help="The generation prompt, for models and policies that read it."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Score images and show the route that the policy gives them.

    Folders are searched for images. A broken file is reported and does not stop the others.

    Exit code: 0 when every image was scored, 1 when some were not, 2 when nothing was tried.
    """
    EventMaker(tenant=tenant, prompt=prompt).check()
    if report is not None:
        need("jinja2")
    settings = _settings(config, policy, model)
    sources = Sources(paths, object_lister(settings), settings.images.formats)
    rules = present_policy(settings)
    loaded = load_model(settings.model, settings.s3)
    screen = console.err if output == Path("-") else console.out
    tally = Tally(KEPT)
    started = time.perf_counter()
    provenance = open_reader(settings.images)
    with (
        closing(provenance) if provenance is not None else nullcontext(),
        closing(build_fetcher(settings, when_needed=True)) as fetcher,
        closing(open_engine(settings, loaded)) as engine,
        closing(DecoderPool(DecodeLimits.of(settings.images), loaded.manifest.views, settings.images)) as decoder,
        _lines(output) as write,
        _progress(sources.count()) as advance,
    ):
        scorer = Scorer(
            loaded,
            engine,
            rules,
            fetcher,
            batch_size=settings.intake.batch_size,
            decoder=decoder,
            threads=settings.intake.prepare_threads,
            tenant=tenant,
            prompt=prompt,
            thumbnails=report is not None,
            provenance=provenance,
        )
        for result in scorer.score(sources):
            write(_line(result, loaded.manifest.digest, rules.digest))
            tally.add(
                ReportEntry(
                    result.name,
                    result.route,
                    result.scores,
                    result.failure,
                    result.thumbnail,
                    provenance=result.provenance,
                )
            )
            if result.failure is not None:
                console.err.print(console.failure_text(result.name, result.failure), soft_wrap=True)
            advance()
    seconds = time.perf_counter() - started
    if report is not None:
        title = "Scores of " + (paths[0] if len(paths) == 1 else f"{len(paths)} places")
        _write_report(report, title, seconds, loaded.manifest, rules, tally)
    if tally.scored:
        screen.print(_table(tally))
    _summarise(screen, tally, seconds, sources, report)
    if not tally.total and not sources.unreadable:
        raise UsageError(f"no images in {', '.join(paths)}")
    if tally.failed or sources.unreadable:
        raise CommandFailed(f"{tally.failed} of {tally.total} images could not be scored")


def _settings(config: Path | None, policy: Path | None, model: str | None) -> Settings:
    """The user of this command chooses the files: they may be in any folder, and of any format unless the settings list
    formats.
    """
    loaded = load_settings(config, os.environ)
    changes: dict[str, Any] = {"files": FileSettings(roots=(Path("/"),))}
    if "formats" not in loaded.images.model_fields_set:
        changes["images"] = loaded.images.model_copy(update={"formats": tuple(ImageFormat)})
    if policy is not None:
        changes["policy"] = policy
    if model is not None:
        changes["model"] = model
    return loaded.model_copy(update=changes)


@contextmanager
def _lines(path: Path | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Yields a function that writes one JSON line. Raises UsageError, and CommandFailed when the file cannot be
    written.
    """

    def write(line: dict[str, Any]) -> None:
        with _told(path):
            print(json.dumps(line), file=file)

    if path is None:
        yield lambda _line: None
    elif path == Path("-"):
        yield lambda line: print(json.dumps(line))
    else:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
        try:
            yield write
        finally:
            with _told(path):
                file.close()


@contextmanager
def _told(path: Path | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CommandFailed(f"{path}: cannot be written: {error.strerror}") from error


def _line(result: Result, model: str, policy: str) -> dict[str, Any]:
    scores = result.scores
    return {
        "image": result.name,
        "quality": None if scores is None else scores.quality,
        "route": result.route.model_dump(mode="json"),
        "scores": None if scores is None else scores.model_dump(mode="json"),
        "failure": None if result.failure is None else result.failure.model_dump(mode="json"),
        "provenance": None if result.provenance is None else result.provenance.model_dump(mode="json"),
        "content_hash": result.content_hash,
        "model": model,
        "policy": policy,
    }


@contextmanager
def _progress(total: int | None) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; nothing in a pipe."""
    columns = (SpinnerColumn(), TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as progress:
        task = progress.add_task("scoring", total=total)
        yield lambda: progress.advance(task)


def _write_report(path: Path, title: str, seconds: float, model: ModelManifest, policy: Policy, tally: Tally) -> None:
    from worker.demo.report.page import ScoreReport, write_report  # loads a template engine

    report = ScoreReport(
        title=title,
        created_at=datetime.now(UTC),
        seconds=seconds,
        model=f"{model.name} {model.version}",
        model_digest=model.digest,
        policy=policy.version,
        policy_digest=policy.digest,
        tally=tally,
    )
    try:
        write_report(report, path)
    except OSError as error:
        raise CommandFailed(f"{path}: the report cannot be written: {error.strerror}") from error


def _table(tally: Tally) -> Table:
    worst = tally.worst[:LISTED]
    caption = None if len(worst) == tally.scored else f"the {len(worst)} worst of {tally.scored:,}"
    table = Table("image", "quality", "route", "labels", caption=caption)
    table.columns[0].overflow = "fold"
    table.columns[1].justify = "right"
    for entry in worst:
        labels = " ".join(entry.route.labels)
        name = Text(console.printable(entry.name))  # Text, because rich would read [brackets] in a string as markup
        table.add_row(name, f"{entry.quality:.2f}", console.route_text(entry.route), labels)
    return table


def _summarise(screen: Console, tally: Tally, seconds: float, sources: Sources, report: Path | None) -> None:
    actions = tally.actions()
    screen.print(
        f"{tally.scored:,} scored in {seconds:.1f} s: {actions['pass']:,} pass, {actions['review']:,} review, "
        f"{actions['reject']:,} reject; {tally.failed:,} could not be judged"
    )
    console.tell_left_out(screen, sources.skipped, sources.skipped_names, sources.links, sources.unreadable)
    if report is not None:
        screen.print(f"report: {report}", markup=False, soft_wrap=True)
