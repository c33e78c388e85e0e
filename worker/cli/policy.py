"""`sluice policy`: checks a policy, replays it over past verdicts, and proposes thresholds."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from schemas import Verdict
from worker.cli import console, tuning
from worker.cli.errors import CommandFailed, UsageError
from worker.cli.events import explain
from worker.cli.lines import read_lines
from worker.cli.tuning import VerdictHistory, known_bad
from worker.policy import load_policy
from worker.policy.replay import Replay, replay
from worker.policy.requirements import needed_provenance
from worker.review.capacity import Capacity, CapacityError, propose
from worker.review.capacity_plot import plot

app = typer.Typer(
    name="policy", help="Check policies, replay them over past verdicts, and propose thresholds.", no_args_is_help=True
)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")]


@app.command()
def check(file: FileArgument) -> None:
    """Check a policy file and report every problem with line and rule.

    Exit code: 0 when the policy is valid, 2 when it is not.
    """
    policy = load_policy(file)
    console.out.print(f"{file}: version {policy.version}, {policy.digest}", markup=False, soft_wrap=True)
    if (needed := needed_provenance(policy)) == "c2pa":
        console.out.print(
            f"it reads provenance.c2pa: workers need images.provenance: {needed}", markup=False, soft_wrap=True
        )


@app.command("replay")
def replay_command(
    file: FileArgument,
    verdicts: Annotated[
        Path,
        typer.Option(
            "--verdicts", metavar="FILE", help="Past verdicts as JSON lines, as written by `sluice tail --json`."
        ),
    ],
) -> None:
    """Show which past verdicts a policy would change.

    Exit code: 0, or 1 when a line of the verdicts could not be read.
    """
    policy = load_policy(file)
    bad = Counter[str]()
    result = replay(policy, _verdicts(verdicts, bad))
    console.out.print(_destinations(result))
    if result.flips:
        console.out.print(_flips(result))
        console.out.print(_examples(result))
    for line in _remarks(result):
        console.out.print(line, markup=False, soft_wrap=True)
    if bad:
        raise CommandFailed(f"{bad.total():,} lines of {verdicts} are not verdicts and were skipped")


@app.command()
def tune(
    verdicts: Annotated[
        Path,
        typer.Option(
            "--verdicts", metavar="FILE", help="Past verdicts as JSON lines, as written by `sluice tail --json`."
        ),
    ],
    reviewers: Annotated[int, typer.Option("--reviewers", min=1, help="Number of reviewers.")],
    seconds_per_item: Annotated[float, typer.Option("--seconds-per-item", min=0.1, help="Seconds per item.")] = 5.0,
    hours: Annotated[float, typer.Option("--hours", min=0.1, max=24, help="Hours per reviewer and day.")] = 6.0,
    images_a_day: Annotated[
        float | None,
        typer.Option("--images-a-day", min=1, help="Images per day. Default: computed from the verdicts' times."),
    ] = None,
    decisions: Annotated[
        Path | None,
        typer.Option(
            "--decisions",
            metavar="FILE",
            help="Items with decisions, as written by `sluice desk export`.",
        ),
    ] = None,
    human_scores: Annotated[
        Path | None,
        typer.Option("--human-scores", metavar="FILE", help="A CSV file with the columns event_id and score (1 to 5)."),
    ] = None,
    bad_below: Annotated[
        float, typer.Option("--bad-below", help="An image with a human score below this is bad.")
    ] = 2.5,
    plot_file: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Write a chart (SVG) of cost and yield.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document, for programs.")] = False,
) -> None:
    """Propose the quality threshold that fills the reviewers' time with the worst images.

    Also shows the cost of other thresholds and, with --decisions or --human-scores, how many bad images each finds.

    Exit code: 0, 1 when a line could not be read, or 2 when nothing can be proposed.
    """
    bad = Counter[str]()
    known = known_bad(decisions, human_scores, bad_below, bad)
    past = VerdictHistory.of(_verdicts(verdicts, bad), known)
    capacity = Capacity(reviewers, hours, seconds_per_item)
    try:
        proposal = propose(past.scored, capacity, images_a_day or past.images_a_day())
    except CapacityError as error:
        raise UsageError(str(error)) from error
    if plot_file is not None:
        try:
            plot_file.write_text(plot(proposal), encoding="utf-8")
        except OSError as error:
            raise UsageError(f"{plot_file}: {error.strerror}") from error
    if as_json:
        print(json.dumps(asdict(proposal)))
    else:
        console.out.print(tuning.table(proposal))
        for line in tuning.remarks(proposal):
            console.out.print(line, markup=False, soft_wrap=True)
    if bad:
        told = ", ".join(f"{number:,} of {path}" for path, number in bad.items())
        raise CommandFailed(f"lines that could not be read were skipped: {told}")


def _verdicts(path: Path, bad: Counter[str]) -> Iterator[Verdict]:
    for place, line in read_lines(path):
        try:
            yield Verdict.model_validate_json(line)
        except ValidationError as error:
            bad[str(path)] += 1
            console.err.print(console.printable(f"{place}: {explain(error)}"), markup=False, soft_wrap=True)


def _destinations(result: Replay) -> Table:
    table = Table("destination", "before", "after", "change")
    for column in table.columns[1:]:
        column.justify = "right"
    for name in sorted(result.before.keys() | result.after.keys()):
        before, after = result.before[name], result.after[name]
        table.add_row(console.printable(name), f"{before:,}", f"{after:,}", f"{after - before:+,}")
    return table


def _flips(result: Replay) -> Table:
    table = Table("from", "to", "verdicts")
    table.columns[2].justify = "right"
    for (before, after), number in result.flips.most_common():
        table.add_row(console.printable(before), console.printable(after), f"{number:,}")
    return table


def _examples(result: Replay) -> Table:
    table = Table("example", "quality", "from", "by rule", "to", "by rule ")
    for flip in result.examples:
        table.add_row(
            Text(console.printable(flip.event_id), overflow="fold"),
            f"{flip.quality:.2f}",
            *map(console.printable, (flip.before, flip.rule_before, flip.after, flip.rule_after)),
        )
    return table


def _remarks(result: Replay) -> Iterator[str]:
    yield f"{result.replayed:,} of {result.total:,} verdicts replayed, {result.flips.total():,} would go elsewhere"
    if result.changed:
        yield f"{result.changed:,} more would keep their destination with another priority or other labels"
    if result.failed:
        yield f"{result.failed:,} have no scores, so no policy changes them"
    for rule, number in result.undecided.most_common():
        reads = ", ".join(result.undecided_reads[rule])
        yield f"{number:,} cannot be replayed: rule {rule} reads {reads}, which verdicts do not contain"
