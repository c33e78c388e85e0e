"""`sluice replay`: judges past events again and writes the verdicts to a separate topic."""

import threading
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from worker.cli import console
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.extras import need
from worker.cli.options import ConfigOption, DataOption, ModelOption, Place, PolicyOption, find_place
from worker.cli.stopping import stopping
from worker.cli.times import point_in_time
from worker.images.fetch import build_fetcher
from worker.replay.comparison import ReplayComparison, compare
from worker.replay.report import PICTURES, ChangeCard, pictures, write_report
from worker.replay.run import ReplayResult, replay
from worker.replay.window import ReplayRequest
from worker.review.open_topics import open_topics
from worker.telemetry.logs import configure_logging

app = typer.Typer(add_completion=False)


@app.command("replay")
def replay_command(
    since: Annotated[
        str, typer.Option("--from", metavar="TIME", help="Events from this time on: 2026-11-30T14:05Z or 2h.")
    ],
    until: Annotated[
        str | None, typer.Option("--to", metavar="TIME", help="Events before this time. Default: now.")
    ] = None,
    model: ModelOption = None,
    policy: PolicyOption = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FILE", help="Write an HTML report that shows the changed images."),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Judge past events again with another model or policy, and compare the verdicts.

    The new verdicts go to the topic images.replays. The live stream does not change: no review items, no dead letters,
    no cache entries, no offsets. You can stop it at any time; run the same command with the printed times to continue.

    Exit code: 0 when every event is judged, 1 when it was stopped before.
    """
    place = find_place(config, data)
    now = datetime.now(UTC).replace(microsecond=0)
    begin = point_in_time(since, "--from", now)
    end = point_in_time(until, "--to", now) if until else now
    if begin >= end:
        raise UsageError(f"--from {begin.isoformat()} is not before --to {end.isoformat()}")
    changes: dict[str, object] = {"model": model} if model is not None else {}
    if policy is not None:
        changes["policy"] = policy.resolve()
    place = Place(place.settings.model_copy(update=changes), place.data)
    configure_logging(place.settings.telemetry.model_copy(update={"log_level": "WARNING"}))
    if report is not None:
        need("jinja2")
    with stopping() as stop:
        result = _run(place, begin, end, stop)
    if not result.is_over:
        raise CommandFailed(
            f"stopped after {result.done:,} of {result.window.total:,}; to continue, run it again with "
            f"--from {begin.isoformat()} --to {end.isoformat()}"
        )
    with closing(open_topics(place.settings, place.data)) as topics:
        names = place.settings.kafka.topics
        comparison = compare(topics, names, result.window, result.request.run)
        _tell(comparison)
        if result.missed:
            console.err.print(
                f"{result.missed:,} records were deleted from the topic before they could be judged again"
            )
        if report is not None:
            with closing(build_fetcher(place.settings)) as fetcher, _bar("pictures") as progress:
                task = progress.add_task("pictures", total=min(PICTURES, len(comparison.changes)))
                cards = pictures(
                    comparison.changes,
                    topics,
                    names.images,
                    fetcher,
                    place.settings.images.max_pixels,
                    lambda: progress.advance(task),
                )
            _write(report, result.request, comparison, cards)


def _run(place: Place, begin: datetime, end: datetime, stop: threading.Event) -> ReplayResult:
    with _bar("judging") as progress:
        task = progress.add_task("judging", total=None)
        told: set[str] = set()

        def on_progress(request: ReplayRequest, done: int, total: int) -> None:
            if not told:
                told.add(request.run)
                console.err.print(f"run {request.run}: {begin.isoformat()} to {end.isoformat()}", markup=False)
            progress.update(task, completed=done, total=total)

        return replay(
            place.settings,
            place.data,
            begin,
            end,
            stop,
            on_progress,
            lambda: closing(open_topics(place.settings, place.data)),
        )


def _bar(name: str) -> Progress:
    columns = (SpinnerColumn(), TextColumn(name), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console.err, transient=True, disable=not console.err.is_terminal)


def _tell(comparison: ReplayComparison) -> None:
    compared = comparison.replayed - comparison.without_past
    console.out.print(
        f"{comparison.replayed:,} events judged again; {comparison.rerouted:,} of {compared:,} have another "
        f"route; mean change of quality {comparison.mean_delta:+.2f}"
    )
    if comparison.without_past:
        console.out.print(f"{comparison.without_past:,} have no past verdict to compare with")
    for (before, after), number in comparison.routes.most_common():
        if before != after:
            console.out.print(f"  {number:8,}  {before} -> {after}", markup=False)


def _write(path: Path, request: ReplayRequest, comparison: ReplayComparison, cards: list[ChangeCard]) -> None:
    try:
        write_report(path, request, comparison, cards, datetime.now(UTC))
    except OSError as error:
        raise CommandFailed(f"{path}: the report cannot be written: {error.strerror}") from error
    console.out.print(f"report: {path}", markup=False, soft_wrap=True)
