"""Optional packages, and the extra of Sluice that installs each."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec


class ExtraMissing(Exception):
    """A command needs a package that is not installed. The message names the extra that installs it."""


EXTRAS = {
    "argon2": "desk",
    "c2pa": "c2pa",
    "fakeredis": "embedded",
    "fastapi": "desk",
    "itsdangerous": "desk",
    "jinja2": "report",
    "joserfc": "desk",
    "nncf": "quantize",
    "onnx": "torch",
    "onnxscript": "train",
    "open_clip": "train",
    "openpyxl": "train",
    "opentelemetry": "otel",
    "pyarrow": "backfill",
    "python_multipart": "serve",
    "ray": "serve",
    "scipy": "train",
    "starlette": "desk",
    "torch": "train",
    "uvicorn": "desk",
}
"""Module → an extra that installs it. A test compares it with pyproject.toml."""


def need(*modules: str) -> None:
    """Raises ExtraMissing when one of the modules is not installed, so that a command fails before it works for
    minutes.
    """
    for module in modules:
        if not _is_installed(module):
            raise _missing(module, EXTRAS[module])


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # its import is blocked
        return False


@contextmanager
def extra(name: str) -> Iterator[None]:
    """For imports that need packages of this extra. Raises ExtraMissing, which says how to install them."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise _missing(str(error.name), name) from error


def explained(error: ModuleNotFoundError) -> ExtraMissing | None:
    """The message for a missing module that an extra installs; None for other modules."""
    module = str(error.name).partition(".")[0]
    return _missing(module, EXTRAS[module]) if module in EXTRAS else None


def _missing(module: str, name: str) -> ExtraMissing:
    return ExtraMissing(f"this command needs {module}, which is not installed: pip install 'sluice[{name}]'")
