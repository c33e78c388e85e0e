"""Errors of the user's making become one line and an exit code, never a traceback."""

from typing import Any

import typer
from rich.text import Text
from typer.core import TyperGroup

from worker.cli.console import err, printable
from worker.demo.errors import DemoFailed
from worker.intake.log import LogError
from worker.intake.topics import TopicsError
from worker.policy import PolicyError
from worker.scoring.engine import EngineError
from worker.scoring.manifest import ManifestError
from worker.settings import SettingsError
from worker.telemetry.server import TelemetryServerError

FAILED = 1
USAGE = 2
INTERRUPTED = 130


class UsageError(Exception):
    """The command cannot do what it was told to: exit code 2."""


class CommandFailed(Exception):
    """The command did what it could, and that was not all: exit code 1."""


_EXIT_CODES: dict[type[Exception], int] = {
    UsageError: USAGE,
    SettingsError: USAGE,
    PolicyError: USAGE,
    ManifestError: USAGE,
    LogError: FAILED,
    TopicsError: FAILED,
    EngineError: FAILED,
    TelemetryServerError: FAILED,
    DemoFailed: FAILED,
    CommandFailed: FAILED,
}


class Commands(TyperGroup):
    """A group of commands whose known errors end in one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except tuple(_EXIT_CODES) as error:
            code = next(code for kind, code in _EXIT_CODES.items() if isinstance(error, kind))
            err.print(Text.assemble(("error: ", "bold red"), "\n".join(map(printable, str(error).splitlines()))))
            raise typer.Exit(code) from error
        except BrokenPipeError as error:  # `sluice tail | head`
            raise typer.Exit(0) from error
