"""Options that several commands share."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from worker.cli.errors import UsageError
from worker.settings import FileSettings, Settings, load_settings

DATA = Path("sluice-data")
"""Default folder of embedded mode: visible, and safe to delete."""

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="The settings file (YAML); SLUICE_… variables override it."),
]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="DIR", help=f"Use the embedded log below DIR (without --config: ./{DATA})."),
]
ModelOption = Annotated[
    str | None, typer.Option("--model", metavar="NAME|FILE", help="A shipped model's name or the path of a manifest.")
]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="The policy file; without one, the policy that ships.")
]


@dataclass(frozen=True, slots=True)
class Place:
    """What a command works on: the servers in `settings`, or the embedded log below `data`."""

    settings: Settings
    data: Path | None


def find_place(config: Path | None, data: Path | None, embedded: bool = False) -> Place:
    """The servers in `config`, or the embedded log with `--data`, with `--embedded` or without `--config`.

    Embedded mode reads any file that its user may read, unless the settings set files.roots: whoever can write to its
    log could read those files anyway. Raises SettingsError and UsageError.
    """
    settings = load_settings(config, os.environ)
    if config is None and data is None and not embedded and "bootstrap_servers" in settings.kafka.model_fields_set:
        raise UsageError(
            "SLUICE_KAFKA__BOOTSTRAP_SERVERS is set, but without --config this command uses the embedded log. "
            "Use --config FILE for Kafka (/dev/null if all settings are variables) or --data DIR for the "
            "embedded log"
        )
    if data is not None and data.exists() and not data.is_dir():
        raise UsageError(f"{data}: not a folder")
    if config is not None and data is None and not embedded:
        return Place(settings, None)
    if not settings.files.roots:
        settings = settings.model_copy(update={"files": FileSettings(roots=(Path("/"),))})
    return Place(settings, data or DATA)
