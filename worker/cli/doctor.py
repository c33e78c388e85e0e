"""`sluice doctor`: checks that Kafka, Redis, S3 and this machine provide what the worker needs."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from worker.cli import console
from worker.cli.errors import FAILED, UsageError
from worker.cli.options import ConfigOption, find_place
from worker.preflight import CheckStatus, Finding, check_decoders, check_servers

app = typer.Typer(add_completion=False)

STYLES = {
    CheckStatus.OK: "green",
    CheckStatus.UNKNOWN: "dim",
    CheckStatus.WRONG: "yellow",
    CheckStatus.BLOCKED: "bold red",
}
WRONG = (CheckStatus.WRONG, CheckStatus.BLOCKED)


@app.command()
def doctor(
    config: ConfigOption = None,
    desk: Annotated[bool, typer.Option("--desk", help="Also check what the review desk needs.")] = False,
) -> None:
    """Check what the worker needs from Kafka, Redis, S3 and this machine, and show how to fix problems.

    Changes nothing and does not disturb running workers. `sluice up` makes the same checks of the servers before it
    starts.

    Exit code: 0 when all checks pass, 1 when some do not, 2 when the settings cannot be used.
    """
    if config is None:
        raise UsageError("--config FILE is needed (/dev/null if all settings are variables)")
    place = find_place(config, None)
    findings: list[Finding] = []
    with console.err.status("checking Kafka, Redis, S3 and decoder processes …"):
        findings.extend(check_servers(place.settings, desk=desk))
        findings.extend(check_decoders(place.settings.images))
    console.out.print(_table(findings))
    wrong = sum(finding.status in WRONG for finding in findings)
    if wrong:
        console.out.print(f"{wrong} of {len(findings)} checks failed", markup=False)
        raise typer.Exit(FAILED)
    console.out.print(f"all {len(findings)} checks passed", markup=False)


def _table(findings: list[Finding]) -> Table:
    table = Table(show_lines=True)
    for heading in ("check", "result", "found", "what to do"):
        table.add_column(heading, overflow="fold")
    for finding in findings:
        table.add_row(
            console.printable(finding.check),
            Text(finding.status.value, style=STYLES[finding.status]),
            console.printable(finding.detail),
            console.printable(finding.advice),
        )
    return table
