"""`sluice doctor`: checks whether Kafka, Redis, S3 and this machine give the worker what it needs."""

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
    desk: Annotated[
        bool, typer.Option("--desk", help="Check what the review desk needs too: it also reads topics.")
    ] = False,
) -> None:
    """Check what the worker needs of Kafka, Redis, S3 and this machine, and tell what to do about what is wrong.

    Nothing is changed, and no running worker is disturbed. `sluice up` makes the same checks of the servers before it
    starts.

    Exit code: 0 when all is well, 1 when something is wrong, 2 when the settings cannot be used.
    """
    if config is None:
        raise UsageError("say which settings: --config FILE (/dev/null where variables say everything)")
    place = find_place(config, None)
    findings: list[Finding] = []
    with console.err.status("checking Kafka, Redis, S3 and decoder processes …"):
        findings.extend(check_servers(place.settings, desk=desk))
        findings.extend(check_decoders(place.settings.images))
    console.out.print(_table(findings))
    wrong = sum(finding.status in WRONG for finding in findings)
    if wrong:
        console.out.print(f"{wrong} of {len(findings)} checks found something wrong", markup=False)
        raise typer.Exit(FAILED)
    console.out.print(f"all is well in {len(findings)} checks", markup=False)


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
