"""Known errors end a command with one line on stderr and an exit code, without a traceback."""

import errno
from typing import Any

import typer
from typer.core import TyperGroup

from worker.cli.extras import explained

FAILED = 1
USAGE = 2


class UsageError(Exception):
    """The command cannot start: exit code 2."""


class CommandFailed(Exception):
    """The command did only part of its work: exit code 1."""


EXIT_CODES = {
    "worker.cli.errors.UsageError": USAGE,
    "worker.cli.extras.ExtraMissing": USAGE,
    "worker.settings.loading.SettingsError": USAGE,
    "worker.policy.errors.PolicyError": USAGE,
    "worker.images.provenance.c2pa_process.ProvenanceError": USAGE,
    "worker.scoring.manifest.ManifestError": USAGE,
    "worker.model.data.DataError": USAGE,
    "worker.model.clip.checkpoint.CheckpointError": USAGE,
    "worker.model.clip.onnx_export.ExportError": USAGE,
    "worker.model.clip.towers.WeightsError": USAGE,
    "worker.scoring.tensorrt_binding.BindingMissing": USAGE,
    "trt_build.errors.BuildError": FAILED,
    "worker.scoring.onnx_file.GraphError": FAILED,
    "worker.apps.checking.check.DeployConfigError": USAGE,
    "worker.cli.errors.CommandFailed": FAILED,
    "worker.demo.errors.DemoFailed": FAILED,
    "worker.intake.log.LogError": FAILED,
    "worker.intake.topics.TopicsError": FAILED,
    "worker.scoring.verification.Unverified": FAILED,
    "worker.scoring.engine.EngineError": FAILED,
    "worker.scoring.engine_record.EngineMismatch": FAILED,
    "worker.scoring.stores.RepositoryError": FAILED,
    "worker.telemetry.server.TelemetryServerError": FAILED,
    "worker.review.http.server.DeskServerError": FAILED,
    "worker.review.http.accounts.AccountsError": FAILED,
}
"""Names instead of classes, so that a command does not import modules that it does not need."""


DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})
"""Errors of a disk that is full or read-only: exit code 1."""


class Commands(TyperGroup):
    """A group of commands whose known errors end in one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # `sluice tail | head`
            raise typer.Exit(0) from error
        except Exception as error:
            code = show(error)
            if code is None:
                raise
            raise typer.Exit(code) from error


def show(error: Exception) -> int | None:
    """Prints a known error and returns its exit code. Returns None for an unknown error, and prints nothing."""
    known = _explained(error)
    code = exit_code(known)
    if code is not None:
        from rich.text import Text  # imported here because only errors need them

        from worker.cli.console import err, printable

        text = "\n".join(map(printable, _text(known).splitlines()))
        err.print(Text.assemble(("error: ", "bold red"), text), soft_wrap=True)
    return code


def exit_code(error: Exception) -> int | None:
    """The exit code of a known error; None for an unknown one."""
    if isinstance(error, OSError) and error.errno in DISK:
        return FAILED
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__)
    return next((EXIT_CODES[name] for name in names if name in EXIT_CODES), None)


def _explained(error: Exception) -> Exception:
    """Turns a missing package of an extra into an error that names the extra; returns any other error."""
    return explained(error) or error if isinstance(error, ModuleNotFoundError) else error


def _text(error: Exception) -> str:
    if not isinstance(error, OSError):
        return str(error)
    return f"{error.filename or 'the output'}: cannot be written: {error.strerror}"
