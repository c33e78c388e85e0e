"""The `sluice` command, assembled."""

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from worker.cli.errors import Commands

COMMANDS = {
    "demo": "Send thirty sample images, degraded copies and hostile files through the whole embedded path.",
    "score": "Score images and say where the policy would send them.",
    "up": "Run the worker: judge images as their events arrive.",
    "config": "Show the settings in force, without secrets.",
    "doctor": "Check what the worker needs of Kafka, Redis and S3, and tell what to do about what is wrong.",
    "submit": "Publish one event for each image.",
    "tail": "Follow verdicts, or the records of another topic, as they are committed.",
    "dead": "Dead letters: list, show, redrive, drop.",
    "replay": "Judge past events again by another model or policy, and compare with their verdicts.",
    "topics": "Create the topics that the worker needs.",
    "policy": "Check policies, and see what they would have done.",
    "desk": "Serve the review desk; rebuild its index, export items, import votes.",
    "deploy": "Check Serve configs, and make keys for the gateway.",
    "model": "List, show, import and promote models.",
    "build": "Compile a model's towers into engines, and publish them in a model repository.",
    "verify": "Compare the engines of a repository with the reference, and write the reports beside them.",
    "evaluate": "Measure a model against people's scores: agreement, calibration, thresholds, generators.",
    "explain": "Draw why an image got its score: anchors, the gate's balance, and where the fine stream sees damage.",
    "train": "Train the fusion and heads of a model on its towers' features, which are computed once.",
    "trust": "See how many bad images pass, and how certain that is.",
}
"""Each is a module of this package with an `app`; the text is the first line of its help, so that `sluice --help` needs
none of them. A test keeps both equal."""


class Sluice(Commands):
    """Imports a command's module when the command is called."""

    def list_commands(self, _ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: Any, cmd_name: str) -> Any:
        """The command's name and help only."""
        return TyperCommand(name=cmd_name, help=COMMANDS[cmd_name]) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            return args[0], typer.main.get_command(import_module(f"worker.cli.{args[0]}").app), args[1:]
        self.commands = {name: self.get_command(ctx, name) for name in COMMANDS}  # typer suggests the nearest of these
        return super().resolve_command(ctx, args)


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
        from importlib.metadata import version

        typer.echo(f"sluice {version('sluice')}")
        raise typer.Exit


@app.callback()
def _begin(
    _version: Annotated[
        bool, typer.Option("--version", callback=_tell_version, is_eager=True, help="Tell the version and exit.")
    ] = False,
) -> None:
    from worker.cli.silence import be_silent  # structlog is not needed for the help

    be_silent()
