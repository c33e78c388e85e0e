"""The `sluice` command and its subcommands."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from worker.cli.errors import Commands

COMMANDS = {
    "demo": "Judge thirty sample images, degraded copies and hostile files in embedded mode.",
    "score": "Score images and show the route that the policy gives them.",
    "up": "Run the worker: judge images as their events arrive.",
    "config": "Show the settings in effect, without secrets.",
    "doctor": "Check what the worker needs from Kafka, Redis, S3 and this machine, and show how to fix problems.",
    "submit": "Publish one event for each image.",
    "tail": "Follow verdicts, or the records of another topic, as they are committed.",
    "dead": "List, show, redrive and drop dead letters.",
    "replay": "Judge past events again with another model or policy, and compare the verdicts.",
    "backfill": "Judge the images that a bucket already holds, and write their verdicts to Parquet files.",
    "topics": "Create the topics that the worker needs.",
    "policy": "Check policies, replay them over past verdicts, and propose thresholds.",
    "desk": "Serve the review desk, rebuild its index, export items and import votes.",
    "deploy": "Check Ray Serve configs, show applications' state, and make keys for the gateway and the desk's API.",
    "model": "List, show, import and promote models.",
    "build": "Compile a model's towers into engines, and publish them in a model repository.",
    "verify": "Compare the engines of a repository with the reference engine, and store the reports.",
    "evaluate": "Compare a model's scores with human scores: agreement, calibration, thresholds, generators.",
    "explain": "Draw why an image got its score: similarity to each grade, weight of each stream, and a heat map.",
    "train": "Train the fusion and heads of a model on the features of its frozen towers.",
    "trust": "Estimate how many passed images are bad, with confidence intervals.",
}
"""Each is a module of this package with an `app`. The text is the first line of the command's help, so that `sluice
--help` imports none of them. A test keeps both equal.
"""


class Sluice(Commands):
    """A group that imports a command's module when the command is called."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """Only the command's name and help."""
        return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            return args[0], typer.main.get_command(import_module(f"worker.cli.{args[0]}").app), args[1:]
        self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # typer suggests the nearest of these
        return super().resolve_command(ctx, args)


app = typer.Typer(
    name="sluice",
    cls=Sluice,
    help="A streaming quality gate for AI-generated images.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _tell_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sluice {version('sluice')}")
        raise typer.Exit


@app.callback()
def _begin(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    from worker.cli.silence import be_silent  # structlog is not needed for the help

    be_silent()
