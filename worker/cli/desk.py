"""`sluice desk`: serves the review desk, rebuilds its index, exports items, imports votes."""

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TextIO

import redis
import typer

from worker.cache.client import connect_embedded, connect_server
from worker.cli import console
from worker.cli.desk_serve import serve_command
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.options import DATA, ConfigOption, DataOption, Place, find_place
from worker.review.answers import Status
from worker.review.catalogue.catalogue import FILE, Catalogue
from worker.review.catalogue.export import everything
from worker.review.desk import Desk
from worker.review.index import keys
from worker.review.interchange import READERS, WRITERS, InterchangeError, Refusal
from worker.review.interchange.votes import bring_in
from worker.review.open_topics import open_topics
from worker.review.projector import catch_up, fill, rebuild
from worker.review.topics import Topics

app = typer.Typer(
    name="desk", help="Serve the review desk, rebuild its index, export items and import votes.", no_args_is_help=True
)
app.command("serve")(serve_command)

FormatOption = Annotated[str, typer.Option("--format", metavar="NAME", help="jsonl, csv or label-studio.")]


@app.command("rebuild")
def rebuild_command(config: ConfigOption = None, data: DataOption = None) -> None:
    """Remove the index in Redis and build it again from the topics.

    Desks may keep running. They give out no leases until the index is complete. In embedded mode the index is built at
    every start, so this only shows what it would hold.
    """
    with _desk(find_place(config, data)) as (_, items):
        console.out.print(f"the index holds {items:,} {'item' if items == 1 else 'items'}", markup=False)


@app.command("export")
def export_command(
    format_: FormatOption = "jsonl",
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="Where to write; - is stdout.")] = Path("-"),
    queue: Annotated[str | None, typer.Option("--queue", metavar="NAME", help="Only of this queue.")] = None,
    status: Annotated[Status | None, typer.Option("--status", help="Only items with this status.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Write items with their decisions, newest first: all open items, and those settled in the last
    review.keep_closed_days."""
    write = WRITERS.get(format_)
    if write is None:
        raise UsageError(f"unknown format {format_!r}; expected {', '.join(WRITERS)}")
    place = find_place(config, data)
    try:
        with _catalogue(place) as (topics, catalogue), _opened(output) as file:
            fill(place.settings, topics, catalogue, _now)
            number = write(everything(catalogue, place.settings.review, queue, status), file)
    except OSError as error:
        raise UsageError(f"{output}: {error.strerror}") from error
    console.err.print(f"{number:,} {'item' if number == 1 else 'items'} written", markup=False)


@app.command("import")
def import_command(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="Votes, as written by `sluice desk export` or Label Studio.")
    ],
    format_: FormatOption = "jsonl",
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Record the votes of a file, each in its reviewer's name. Importing a file again changes nothing.

    Exit code: 0, or 1 when a vote could not be counted.
    """
    read = READERS.get(format_)
    if read is None:
        raise UsageError(f"unknown format {format_!r}; expected {', '.join(READERS)}")
    counted, known, refused = 0, 0, 0
    try:
        with (
            file.open(encoding="utf-8", newline="") as votes,
            _desk(find_place(config, data), fresh=False) as (desk, _),
        ):
            for outcome in bring_in(desk, read(votes)):
                if isinstance(outcome, Refusal):
                    refused += 1
                    line = console.printable(f"{file}, {outcome.place}: {outcome.reason}")
                    console.err.print(line, markup=False, soft_wrap=True)
                elif outcome.is_new:
                    counted += 1
                else:
                    known += 1
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: {error}") from error
    except InterchangeError as error:
        raise UsageError(f"{file}: {error}") from error
    before = f", {known:,} had been counted before" if known else ""
    console.out.print(f"{_votes(counted)} counted{before}", markup=False)
    if refused:
        raise CommandFailed(f"{_votes(refused)} could not be counted")


@app.command("reset-password")
def reset_password_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The local user.")],
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Print a link with which a local user can set a new password, once, within a day.

    For an admin who cannot sign in; for other users, admins make such a link at the desk. Run it where the desk keeps
    its users: with the desk's --data, or, with --config, in the desk's working directory.
    """
    from worker.review.http.accounts import PEOPLE_FILE, Accounts

    place = find_place(config, data)
    file = (place.data or DATA) / PEOPLE_FILE
    if not file.exists():
        raise UsageError(f"{file}: no local users here; run this where the desk keeps its data")
    with closing(Accounts(file, time.time)) as accounts:
        token = accounts.reset(name, "sluice")
    if token is None:
        raise UsageError(f"{file}: there is no user {name!r}")
    web = place.settings.web
    console.out.print(
        f"{web.public_url or f'http://{web.host}:{web.port}'}/#invitation={token}", markup=False, soft_wrap=True
    )


def _votes(number: int) -> str:
    return "1 vote" if number == 1 else f"{number:,} votes"


@contextmanager
def _desk(place: Place, *, fresh: bool = True) -> Iterator[tuple[Desk, int]]:
    """Opens a desk and returns it with the number of its items. `fresh`: build the index again. The embedded index is
    always built, and so is one that Redis has lost.
    """
    embedded = place.data is not None
    client = connect_embedded() if embedded else connect_server(place.settings.redis)
    try:
        with _catalogue(place) as (topics, catalogue):
            desk = Desk(place.settings, topics, client, catalogue)
            items = 0
            if fresh or embedded:
                items = rebuild(place.settings, topics, client, catalogue, _now)
            elif not client.exists(keys.READY):
                catch_up(place.settings, topics, client, catalogue, _now)
            yield desk, items
    except redis.RedisError as error:
        raise CommandFailed(f"Redis: {error}; check redis.url and that the server runs") from error
    finally:
        client.close()


@contextmanager
def _catalogue(place: Place) -> Iterator[tuple[Topics, Catalogue]]:
    """The topics, and an empty temporary catalogue."""
    with (
        TemporaryDirectory(prefix="sluice-desk-") as folder,
        closing(open_topics(place.settings, place.data)) as topics,
        closing(Catalogue(Path(folder) / FILE, place.settings.review)) as catalogue,
    ):
        yield topics, catalogue


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    if path == Path("-"):
        yield sys.stdout
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            yield file


def _now() -> datetime:
    return datetime.now(UTC)
