"""`sluice up`: runs the worker until it is stopped."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.extras import need
from worker.cli.live import StatusLine
from worker.cli.options import DATA, ConfigOption, DataOption, Place, find_place
from worker.cli.stuck_threads import ending_stuck_threads
from worker.settings import TelemetrySettings
from worker.supervision import Supervisor
from worker.telemetry.logs import configure_logging
from worker.wiring import Worker, build_embedded_worker, build_worker

if TYPE_CHECKING:
    from worker.review.http.serving import ServedDesk

app = typer.Typer(add_completion=False)


@app.command()
def up(
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Run without servers: log, cache and data below --data.")
    ] = False,
    config: ConfigOption = None,
    data: DataOption = None,
    desk: Annotated[bool, typer.Option("--desk", help="Also serve the review desk, at web.host and web.port.")] = False,
) -> None:
    """Run the worker: judge images as their events arrive.

    SIGTERM or Ctrl-C finishes the batches in the engine and stops; a second one stops at once.

    Exit code: 0 after it was stopped, 1 when it could not continue, 2 when it could not start.
    """
    if config is None and data is None and not embedded:
        raise UsageError("use --config FILE (Kafka, Redis and S3) or --embedded (no servers)")
    place = find_place(config, data, embedded)
    need(*(["fakeredis"] if place.data is not None else []), *(["fastapi"] if desk else []))
    stop = threading.Event()
    with ending_stuck_threads(), stopped_by_signals(stop):
        worker = _build(place)
        with _live(worker) if console.err.is_terminal else nullcontext():
            # Inside the live display, so that logs are printed above its line.
            configure_logging(log_format(place.settings.telemetry))
            with serving_desk(place, worker) if desk else nullcontext():
                worker.run(stop)


def _build(place: Place) -> Worker:
    if place.data is None:
        return build_worker(place.settings)
    return build_embedded_worker(place.settings, place.data)


@contextmanager
def serving_desk(
    place: Place, worker: Worker | None = None, supervisor: Supervisor | None = None
) -> Iterator["ServedDesk"]:
    """Serves the desk. It shares the engine and supervisor of `worker`, if there is one; otherwise `supervisor` runs
    its loops.

    Prints the desk's address and, while it has no users, the link that creates the first one. With servers, local users
    and the signing key are stored in DATA below the working directory. Raises DeskServerError, AccountsError and
    LogError.
    """
    # Imported here because only the desk needs the web framework.
    from worker.review.http.heat_maps import ExplainEngine
    from worker.review.http.serving import open_and_serve_desk

    explain_engine = None if worker is None else ExplainEngine(worker.model, worker.engine)
    supervisor = supervisor if worker is None else worker.supervisor
    with open_and_serve_desk(place.settings, place.data, place.data or DATA, explain_engine, supervisor) as served:
        console.err.print(f"review desk: {served.address}", markup=False, soft_wrap=True)
        if served.first_link is not None:
            text = f"nobody can sign in yet; this link creates the first user and works once: {served.first_link}"
            console.err.print(text, markup=False, soft_wrap=True)
        yield served


def log_format(settings: TelemetrySettings) -> TelemetrySettings:
    """The settings with a log format: the one that is set, else text on a terminal and JSON otherwise."""
    if console.err.is_terminal and "log_format" not in settings.model_fields_set:
        return settings.model_copy(update={"log_format": "console"})
    return settings


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` at SIGTERM or Ctrl-C; a second one ends the process at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)  # a hanging thread must not delay the exit; uncommitted records are judged again
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _live(worker: Worker) -> Live:
    """A status line that its own thread redraws four times a second. The last state stays on the screen."""
    return Live(StatusLine(worker.metrics, worker.problems), console=console.err)
