"""`sluice demo`: judges sample images in embedded mode."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from worker.cli import console
from worker.cli.demo_desk import show_desk
from worker.cli.errors import CommandFailed
from worker.cli.extras import need
from worker.cli.options import ConfigOption, find_place
from worker.demo import run
from worker.policy.place import present_policy
from worker.scoring.model import load_model
from worker.telemetry.logs import configure_logging

app = typer.Typer(add_completion=False)

NOTICE = (
    "The sample images and their human scores are from AGIQA-3K (Li et al., IEEE TCSVT 2023), under the MIT licence; "
    "no model that ships was trained on them."
)


@app.command()
def demo(
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder for the log, images and report.")] = Path(
        "sluice-demo"
    ),
    config: ConfigOption = None,
) -> None:
    """Judge thirty sample images, degraded copies and hostile files in embedded mode.

    Needs no server and no network. Uses the model and policy of the settings, or those that ship. On a terminal the
    review desk stays open at the end until a key is pressed.
    """
    need("jinja2", "fakeredis", "fastapi")
    settings = find_place(config, data).settings
    manifest = load_model(settings.model).manifest
    policy = present_policy(settings, data)
    configure_logging(settings.telemetry.model_copy(update={"log_level": "ERROR", "log_format": "console"}))
    try:
        with _progress() as progress:
            result = run.run_demo(settings, data, progress)
    except OSError as error:
        raise CommandFailed(f"{error.filename or data}: cannot be written: {error.strerror}") from error
    from worker.demo.report.page import ScoreReport, write_report  # loads a template engine

    report = data / "report.html"
    try:
        write_report(
            ScoreReport(
                title="How Sluice judged its sample images",
                created_at=datetime.now(UTC),
                seconds=result.seconds,
                model=f"{manifest.name} {manifest.version}",
                model_digest=result.model,
                policy=policy.version,
                policy_digest=result.policy,
                tally=result.tally,
                ignored=result.ignored,
                notice=NOTICE,
            ),
            report,
        )
    except OSError as error:
        raise CommandFailed(f"{report}: the report cannot be written: {error.strerror}") from error
    console.out.print(_table(result))
    console.out.print(f"{result.tally.total} verdicts in {result.seconds:.1f} s")
    console.out.print(
        f"every verdict: sluice tail --from-beginning --no-follow --data {data}", markup=False, soft_wrap=True
    )
    console.out.print(f"report: {report}", markup=False, soft_wrap=True)
    show_desk(settings, data)


@contextmanager
def _progress() -> Iterator[run.Progress]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal) as bar:
        task = bar.add_task("starting", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _table(result: run.DemoResult) -> Table:
    tally = result.tally
    table = Table("outcome", "images", show_edge=True)
    table.columns[1].justify = "right"
    table.add_row("scored by the engine", str(tally.scored - tally.cached))
    table.add_row("scored from the cache", str(tally.cached))
    table.add_row("not judged", str(tally.failed))
    table.add_section()
    actions = tally.actions()
    table.add_row("[green]pass[/]", str(actions["pass"]))
    for queue, number in result.queues.most_common():
        table.add_row(f"[yellow]review[/], queue {queue}", str(number))
    table.add_row("[red]reject[/]", str(actions["reject"]))
    table.add_section()
    for reason, number in result.dead.most_common():
        table.add_row(f"dead letter: {reason.value}", str(number))
    table.add_row("deletion, ignored", str(result.ignored))
    return table
