"""The arguments of an application's builder: `args:` in a Serve config."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from worker.settings import Settings, SettingsError, change_settings, load_settings

LiveChanges = Mapping[str, Any] | None
"""A deployment's `user_config`: settings that override those it was built with, and that change without a restart."""


class Arguments(BaseModel):
    """Where an application's settings come from. Applications with more arguments inherit from this.

    The file and the SLUICE_* variables are read where the application is built, so replicas need neither. What the
    settings name (a policy, a model's folder, TLS certificates) must exist for each replica.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    config: Path | None = None
    """A settings file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings as in a file. They override the file and the variables."""

    def load(self) -> Settings:
        """Loads the settings. Raises SettingsError: each line names a problem and its place."""
        return changed(load_settings(self.config, os.environ), self.settings, "args.settings")


def changed(settings: Settings, changes: LiveChanges, where: str) -> Settings:
    """`settings` with `changes` merged into them. Errors name `where`. Raises SettingsError."""
    if not isinstance(changes, Mapping | None):
        raise SettingsError(f"{where}: expected an object that holds settings")
    try:
        return change_settings(settings, changes or {})
    except SettingsError as error:
        raise SettingsError("\n".join(f"{where}: {line}" for line in str(error).splitlines())) from None
