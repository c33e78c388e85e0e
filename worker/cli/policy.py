"""`sluice policy`: is a policy sound, and what would it have done?"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError
from rich.table import Table
from rich.text import Text

from schemas import Verdict
from worker.cli import console
from worker.cli.errors import CommandFailed
from worker.cli.events import explain
from worker.cli.lines import read_lines
from worker.policy import load_policy
from worker.policy.replay import Replay, replay

app = typer.Typer(name="policy", help="Check policies, and see what they would have done.", no_args_is_help=True)

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="The policy file.")]


@app.command()
def check(file: FileArgument) -> None:
    """Check a policy file; every problem is told with line and rule.

    Exit code: 0 when it can be used, 2 when it cannot.
    """
    policy = load_policy(file)
    console.out.print(f"{file}: version {policy.version}, {policy.digest}", markup=False, soft_wrap=True)


@app.command("replay")
def replay_command(
    file: FileArgument,
    verdicts: Annotated[
        Path,
        typer.Option(
            "--verdicts", metavar="FILE", help="Past verdicts, one JSON a line, as `sluice tail --json` writes."
        ),
    ],
) -> None:
    """Show what a policy would have made of past verdicts.

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
        raise CommandFailed(f"{bad.total():,} lines of {verdicts} are no verdicts and were left out")


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
        yield f"{result.failed:,} were never scored; no policy changes that"
    for rule, number in result.undecided.most_common():
        reads = ", ".join(result.undecided_reads[rule])
        yield f"{number:,} cannot be told: rule {rule} reads {reads}, which verdicts do not carry"
