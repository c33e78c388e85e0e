"""`sluice up`: runs the worker until it is told to stop."""

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
    desk: Annotated[
        bool, typer.Option("--desk", help="Serve the review desk too, and print its address (web.host and web.port).")
    ] = False,
) -> None:
    """Run the worker: judge images as their events arrive.

    SIGTERM or Ctrl-C finishes what is with the engine and stops; a second one stops at once.

    Exit code: 0 when it was told to stop, 1 when it could not go on, 2 when it could not begin.
    """
    if config is None and data is None and not embedded:
        raise UsageError("say where to work: --config FILE for Kafka, Redis and S3, or --embedded for none of them")
    place = find_place(config, data, embedded)
    need(*(["fakeredis"] if place.data is not None else []), *(["fastapi"] if desk else []))
    stop = threading.Event()
    with ending_stuck_threads(), stopped_by_signals(stop):
        worker = _build(place)
        with _live(worker) if console.err.is_terminal else nullcontext():
            # Within, so that logs go through the live display and stand above its line.
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
    """The desk, beside the worker whose engine and supervisor it shares if there is one; tells where it is and,
    while it has no user, the link that makes the first one. Without a worker, `supervisor` runs its loops.

    With servers, local users and the signing key are kept below the present folder's DATA. Raises DeskServerError,
    AccountsError and LogError.
    """
    # The desk needs a web framework, the worker alone does not.
    from worker.review.http.heat_maps import ExplainEngine
    from worker.review.http.serving import open_and_serve_desk

    explain_engine = None if worker is None else ExplainEngine(worker.model, worker.engine)
    supervisor = supervisor if worker is None else worker.supervisor
    with open_and_serve_desk(place.settings, place.data, place.data or DATA, explain_engine, supervisor) as served:
        console.err.print(f"review desk: {served.address}", markup=False, soft_wrap=True)
        if served.first_link is not None:
            text = f"nobody can sign in yet; this link, good once, makes the first user: {served.first_link}"
            console.err.print(text, markup=False, soft_wrap=True)
        yield served


def log_format(settings: TelemetrySettings) -> TelemetrySettings:
    """The settings with the log format as set; else text on a terminal and JSON otherwise."""
    if console.err.is_terminal and "log_format" not in settings.model_fields_set:
        return settings.model_copy(update={"log_format": "console"})
    return settings


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Sets `stop` at SIGTERM or Ctrl-C; a second one ends the process at once."""

    def handle(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)  # whatever hangs must not keep us; the log makes good what is lost
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _live(worker: Worker) -> Live:
    """A status line, redrawn four times a second by its own thread; the last state stays on the screen."""
    return Live(StatusLine(worker.metrics, worker.problems), console=console.err)
