"""The `sluice` command, assembled."""

from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any

import typer

from worker.cli.errors import Commands
from worker.cli.silence import be_silent

NAMES = (
    "demo",
    "score",
    "up",
    "submit",
    "tail",
    "dead",
    "topics",
    "policy",
    "desk",
    "deploy",
    "model",
    "build",
    "verify",
    "evaluate",
    "explain",
    "train",
    "trust",
)
"""Each a module of this package with an `app`."""


class Sluice(Commands):
    """Loads a command's module when the command is called: following a topic needs no engine."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(NAMES)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in NAMES:
            return None
        return typer.main.get_command(import_module(f"worker.cli.{cmd_name}").app)


app = typer.Typer(
    name="sluice",
    cls=Sluice,
    help="A quality gate for AI-generated images: score them, route them, let people decide.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        typer.echo(f"sluice {version('sluice')}")
        raise typer.Exit


@app.callback()
def _begin(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version and exit.")
    ] = False,
) -> None:
    be_silent()
