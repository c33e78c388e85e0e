"""`sluice model promote`, `rollback` and `history`: which version of a model serves."""

import getpass
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Column, Table

from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.options import ConfigOption
from worker.scoring.open_store import open_store
from worker.scoring.promotion import Promoter, promote_hint
from worker.scoring.repository import Version
from worker.scoring.serving_record import EngineParity, Promotion
from worker.settings import load_settings

RepositoryOption = Annotated[
    str, typer.Option("--repository", metavar="DIR|S3", help="The model repository: a folder or s3://bucket/prefix.")
]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The model's name in the repository.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="WHO", help="Your name, for the history. Default: your login.")
]
NoteOption = Annotated[str, typer.Option("--note", help="The reason, for the history.")]


def promote(
    name: NameArgument,
    version: Annotated[str, typer.Argument(metavar="VERSION", help="The version to serve.")],
    repository: RepositoryOption,
    by: ByOption = None,
    note: NoteOption = "",
    allow_unverified: Annotated[
        bool,
        typer.Option(
            "--allow-unverified",
            help="Promote even if an engine did not pass the parity gate. That engine is not used.",
        ),
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Choose the version of a model that workers with `model: REPOSITORY/NAME` serve.

    Checks every file of the model, and that each of its engines passed `sluice verify`. Workers use the version when
    they start.

    Exit code: 0 when the version serves, 1 when it was refused.
    """
    promoter = _promoter(repository, config)
    before = promoter.record(name)
    record = promoter.promote(Version(name, version), by=_who(by), note=note, allow_unverified=allow_unverified)
    if before is not None and before.serving == record.serving:
        console.out.print(f"{name} {version} already serves, since {record.serving.at:%Y-%m-%d %H:%M} UTC")
        return
    _tell(name, record.serving, None if before is None else before.serving)


def rollback(
    name: NameArgument,
    repository: RepositoryOption,
    by: ByOption = None,
    note: NoteOption = "",
    config: ConfigOption = None,
) -> None:
    """Restore the version that served before the last promotion. Workers use it when they start.

    Exit code: 0 when it serves again, 1 when there is none or its files are missing or damaged.
    """
    promoter = _promoter(repository, config)
    before = promoter.record(name)
    record = promoter.roll_back(name, by=_who(by), note=note)
    _tell(name, record.serving, None if before is None else before.serving)


def history(name: NameArgument, repository: RepositoryOption, config: ConfigOption = None) -> None:
    """List the promotions and rollbacks of a model, newest first: who, when, and with which engines."""
    record = _promoter(repository, config).record(name)
    if record is None:
        raise UsageError(f"{name}: no version was promoted in {repository}; {promote_hint(name)}")
    table = Table("when (UTC)", "what", "version", "by", "engines", Column("note", overflow="fold"))
    for number, entry in enumerate(reversed(record.log)):
        what = f"{entry.action}, serving" if number == 0 else entry.action
        engines = "\n".join(map(_engine_text, entry.engines)) or "none"
        when = f"{entry.at:%Y-%m-%d %H:%M}"
        table.add_row(when, what, entry.version, console.printable(entry.by), engines, console.printable(entry.note))
    console.out.print(table)


def register(app: typer.Typer) -> None:
    """Adds these commands to `sluice model`."""
    for command in (promote, rollback, history):
        app.command()(command)


def _promoter(repository: str, config: Path | None) -> Promoter:
    return Promoter(open_store(repository, load_settings(config, os.environ).s3))


def _who(by: str | None) -> str:
    try:
        return by or getpass.getuser()
    except (OSError, KeyError) as error:  # a container's user may have no name
        raise UsageError("this user has no login name; pass --by NAME") from error


def _tell(name: str, serving: Promotion, before: Promotion | None) -> None:
    was = "" if before is None else f" in place of {before.version}"
    console.out.print(f"{name} {serving.version} serves{was}; workers use it when they start", markup=False)
    for engine in serving.engines:
        console.out.print(f"  {_engine_text(engine)}", markup=False)
    if not serving.engines:
        console.out.print("  no compiled engine: workers run the model's own graph", markup=False)


def _engine_text(engine: EngineParity) -> str:
    return f"{engine.engine}: {'passed the gate' if engine.report is not None else 'not verified, not used'}"
