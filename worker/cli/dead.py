"""`sluice dead`: lists, shows, redrives and drops dead letters."""

import getpass
import json
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from schemas import FailureReason
from worker.cli import console
from worker.cli.dead_letter_runs import Rate, act, tell_report
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.options import ConfigOption, DataOption, Place, find_place
from worker.cli.times import point_in_time
from worker.dead_letters.actions import ActionReport, LetterActions
from worker.dead_letters.book import LetterBook, open_book
from worker.dead_letters.letter import Letter
from worker.dead_letters.selection import LetterState, Selection
from worker.dead_letters.view import LetterDetail, detail, view
from worker.dead_letters.writers import open_writer
from worker.review.open_topics import open_topics

app = typer.Typer(name="dead", help="List, show, redrive and drop dead letters.", no_args_is_help=True)

IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of letters; the first characters are enough.")
]
ReasonsOption = Annotated[
    list[FailureReason] | None, typer.Option("--failure", help="Only letters with this failure reason. Repeatable.")
]
TenantsOption = Annotated[
    list[str] | None, typer.Option("--tenant", metavar="NAME", help="Only letters of this tenant.")
]
PartitionsOption = Annotated[
    list[int] | None, typer.Option("--partition", min=0, help="Only from this partition of the images topic.")
]
SinceOption = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Only letters that failed at this time or later: 2026-11-30T14:05Z or 2h."
    ),
]
UntilOption = Annotated[
    str | None, typer.Option("--until", metavar="TIME", help="Only letters that failed before this time.")
]
TextOption = Annotated[
    str, typer.Option("--text", metavar="TEXT", help="Only letters whose message or event id contains this text.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Maximum number of letters, newest first.")]
AllOption = Annotated[bool, typer.Option("--all", help="All open letters. Otherwise give ids or a filter.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only show the selected letters.")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]
ActorOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Your name, for the audit. Default: your login.")
]


@app.command("list")
def list_command(
    ids: IdsArgument = None,
    reasons: ReasonsOption = None,
    tenants: TenantsOption = None,
    partitions: PartitionsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    text: TextOption = "",
    state: Annotated[
        LetterState | None, typer.Option("--state", help="Only letters in this state.")
    ] = LetterState.OPEN,
    any_state: Annotated[bool, typer.Option("--any-state", help="Letters in every state.")] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of letters, newest first.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """List dead letters (events that could not be judged), newest first. Without --config the embedded log is read."""
    chosen = _selection(None if any_state else state, ids, reasons, tenants, partitions, since, until, text)
    with _book(find_place(config, data)) as book:
        found = book.find(chosen)
        for letter in found[:limit]:
            if as_json:
                print(view(book, letter).model_dump_json(), flush=True)
            else:
                console.out.print(_line(letter, book.state(letter)), soft_wrap=True)
    if not as_json:
        _tell_count(found, limit)


@app.command()
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="The letter's id; the first characters are enough.")],
    payload: Annotated[
        Path | None,
        typer.Option("--payload", metavar="FILE", help="Write the record's bytes to this file; - is stdout."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Show one letter: the failure, its record, and who redrove it when."""
    with _book(find_place(config, data)) as book:
        letter = _only(book, letter_id)
        whole = book.whole(letter)
        if whole is None:
            raise CommandFailed(f"{letter.letter_id}: the topic no longer holds this letter")
        if payload is not None:
            _write(payload, whole.payload or b"")
        elif as_json:
            print(detail(book, letter, whole).model_dump_json())
        else:
            for line in _lines(detail(book, letter, whole)):
                console.out.print(line, soft_wrap=True)


@app.command()
def redrive(
    ids: IdsArgument = None,
    reasons: ReasonsOption = None,
    tenants: TenantsOption = None,
    partitions: PartitionsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    text: TextOption = "",
    everything: AllOption = False,
    dropped: Annotated[bool, typer.Option("--dropped", help="Redrive dropped letters instead of open ones.")] = False,
    limit: LimitOption = None,
    rate: Annotated[float, typer.Option("--rate", min=0.1, help="Maximum letters per second.")] = 100.0,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason, for the audit.")] = "",
    actor: ActorOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Submit the events of dead letters again.

    Each letter is redriven once, even if this is run several times: the event, the action and the audit entry are
    written in one transaction. Run it again to continue after it was killed. The new record carries the history in its
    headers. An event that fails again becomes another letter.

    Exit code: 0, or 1 when a letter could not be redriven.
    """
    chosen = _selection(
        LetterState.DROPPED if dropped else LetterState.OPEN, ids, reasons, tenants, partitions, since, until, text
    )
    _check_meant(chosen, everything)

    def run(actions: LetterActions, letters: list[Letter]) -> ActionReport:
        return actions.redrive(letters, reason)

    _run("redrive", find_place(config, data), chosen, run, limit, rate, dry_run, yes, actor)


@app.command()
def drop(
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="The reason, for the audit.")],
    ids: IdsArgument = None,
    reasons: ReasonsOption = None,
    tenants: TenantsOption = None,
    partitions: PartitionsOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    text: TextOption = "",
    everything: AllOption = False,
    limit: LimitOption = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
    actor: ActorOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Mark dead letters as not to be submitted again, with a reason.

    Nothing is deleted. The letter stays in its topic until the topic's retention removes it, with the state "dropped",
    the reason and your name. The audit gets an entry. The event's verdict and review item do not change. A dropped
    letter can still be redriven (`sluice dead redrive --dropped`).
    """
    if not reason.strip():
        raise UsageError("--reason: must not be empty")
    chosen = _selection(LetterState.OPEN, ids, reasons, tenants, partitions, since, until, text)
    _check_meant(chosen, everything)

    def run(actions: LetterActions, letters: list[Letter]) -> ActionReport:
        return actions.drop(letters, reason)

    _run("drop", find_place(config, data), chosen, run, limit, None, dry_run, yes, actor)


def _run(
    verb: str,
    place: Place,
    chosen: Selection,
    run: Callable[[LetterActions, list[Letter]], ActionReport],
    limit: int | None,
    rate: float | None,
    dry_run: bool,
    yes: bool,
    actor: str | None,
) -> None:
    with _book(place) as book:
        letters = book.find(chosen)[:limit]
        if not letters:
            console.out.print(f"no letter with the state {chosen.state} matches; nothing was done")
            return
        if dry_run:
            for letter in letters:
                console.out.print(_line(letter, book.state(letter)), soft_wrap=True)
            console.out.print(f"{len(letters):,} letters match; nothing was done")
            return
        if len(letters) > 1 and not yes and sys.stdin.isatty():
            typer.confirm(f"{verb} {len(letters):,} letters?", abort=True)
        with closing(open_writer(place.settings, place.data)) as writer:
            actions = LetterActions(
                book,
                writer,
                place.settings.kafka,
                actor=actor or getpass.getuser(),
                run=uuid.uuid4().hex,
                now=lambda: datetime.now(UTC),
            )
            # Oldest first, so that events keep their order.
            report = act(verb, letters[::-1], lambda part: run(actions, part), Rate(rate))
    tell_report(verb, report)
    if report.refused:
        raise CommandFailed(f"{len(report.refused):,} of {len(letters):,} letters cannot be redriven; they stay open")


def _selection(
    state: LetterState | None,
    ids: list[str] | None,
    reasons: list[FailureReason] | None,
    tenants: list[str] | None,
    partitions: list[int] | None,
    since: str | None,
    until: str | None,
    text: str,
) -> Selection:
    now = datetime.now(UTC)
    return Selection(
        state=state,
        ids=tuple(ids or ()),
        reasons=frozenset(reasons or ()),
        tenants=frozenset(tenants or ()),
        partitions=frozenset(partitions or ()),
        since=point_in_time(since, "--since", now) if since else None,
        until=point_in_time(until, "--until", now) if until else None,
        text=text,
    )


def _check_meant(chosen: Selection, everything: bool) -> None:
    if everything == (chosen != Selection(state=chosen.state)):
        raise UsageError("select letters by id, by filters such as --failure, or with --all")


@contextmanager
def _book(place: Place) -> Iterator[LetterBook]:
    """Reads all letters, with a progress bar on a terminal."""
    with closing(open_topics(place.settings, place.data)) as topics:
        book = open_book(topics, place.settings.kafka.topics)
        with console.err.status("reading the dead letters") as status:
            book.refresh(on_progress=lambda at, end: status.update(f"reading the dead letters: {at:,} of {end:,}"))
        if book.unreadable:
            console.err.print(f"{book.unreadable:,} records are not dead letters and were skipped")
        if book.left_out:
            console.err.print(
                f"there are too many letters to keep in memory: the oldest {book.left_out:,} were skipped"
            )
        yield book


def _only(book: LetterBook, prefix: str) -> Letter:
    found = book.find(Selection(state=None, ids=(prefix,)))
    if not found:
        raise UsageError(f"no dead letter's id begins with {prefix!r}")
    if len(found) > 1:
        raise UsageError(f"{len(found)} ids of letters begin with {prefix!r}; give more characters")
    return found[0]


def _line(letter: Letter, state: LetterState) -> Text:
    source = letter.source
    parts = [
        Text(f"{letter.failed_at:%Y-%m-%d %H:%M:%S}", style="dim"),
        Text(letter.letter_id, style="bold"),
        Text(f"{letter.reason.value:19}", style=console.STYLES["reject"]),
        Text(console.printable(letter.tenant or "-")),
        Text(f"{source.topic}/{source.partition}@{source.offset}"),
        Text("" if state is LetterState.OPEN else state.value, style=console.STYLES["review"]),
        Text(f"redriven {_times(len(letter.history))} before" if letter.history else ""),
        Text(console.printable(letter.message)),
    ]
    return Text("  ").join([part for part in parts if part.plain])


def _lines(letter: LetterDetail) -> Iterator[Text]:
    source = letter.source
    rows = [
        ("letter", letter.letter_id),
        ("state", letter.state.value),
        ("failed", f"{letter.failed_at:%Y-%m-%d %H:%M:%S%z}, tried {_times(letter.attempts)}"),
        ("reason", f"{letter.reason.value}: {letter.message}"),
        ("event", letter.event_id),
        ("tenant", letter.tenant or "-"),
        ("source", f"{source.topic}/{source.partition}@{source.offset}, event {source.index} of the record"),
        ("review item", letter.item_id),
        ("key", letter.key or "-"),
        *((f"header {name}", value) for name, value in letter.headers),
        *(
            ("history", f"{each.redriven_at:%Y-%m-%d %H:%M:%S%z} by {each.actor}, after {each.reason.value}")
            for each in letter.history
        ),
    ]
    if (done := letter.action) is not None:
        because = f": {done.reason}" if done.reason else ""
        rows.append((letter.state.value, f"{done.at:%Y-%m-%d %H:%M:%S%z} by {done.actor}{because}"))
    for name, value in rows:
        yield Text.assemble((f"{console.printable(name):12} ", "bold"), console.printable(value))
    size = f"{letter.payload_size:,} bytes" + (", of which the letter holds the first part" if letter.is_cut else "")
    yield Text.assemble(("record       ", "bold"), size)
    for line in _pretty(letter.text or "").splitlines():
        yield Text(f"  {console.printable(line)}")
    if letter.text_is_cut:
        yield Text("  … (--payload FILE writes all that the letter holds)", style="dim")


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        return text


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count:,} times"


def _tell_count(found: list[Letter], limit: int) -> None:
    count = "1 letter" if len(found) == 1 else f"{len(found):,} letters"
    reasons: dict[str, int] = {}
    for letter in found:
        reasons[letter.reason.value] = reasons.get(letter.reason.value, 0) + 1
    each = ", ".join(f"{number:,} {name}" for name, number in sorted(reasons.items(), key=lambda pair: -pair[1]))
    more = f"; the newest {limit:,} are shown" if len(found) > limit else ""
    console.err.print(f"{count}{f' ({each})' if each else ''}{more}", markup=False, soft_wrap=True)


def _write(path: Path, data: bytes) -> None:
    if path == Path("-"):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
