"""`sluice config`: shows the settings in effect."""

import os
from typing import Annotated

import typer
import yaml

from worker.cli import console
from worker.cli.options import ConfigOption
from worker.settings import load_settings

app = typer.Typer(name="config", help="Show the settings in effect, without secrets.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Makes `show` a subcommand: typer would run a single command without its name."""


@app.command()
def show(
    config: ConfigOption = None,
    everything: Annotated[bool, typer.Option("--all", help="Show defaults too.")] = False,
) -> None:
    """Show the settings as YAML: the file, overridden by SLUICE_… variables. Secrets are shown as stars."""
    settings = load_settings(config, os.environ)
    shown = settings.model_dump(mode="json", exclude_unset=not everything)
    console.out.print(yaml.safe_dump(shown, sort_keys=False, allow_unicode=True), markup=False, highlight=False, end="")
