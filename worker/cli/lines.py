"""Reads files of JSON lines."""

import sys
from collections.abc import Iterator
from pathlib import Path

from worker.cli.errors import UsageError


def read_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The non-empty lines of a file, each with its place (`events.jsonl, line 3`). `-` is stdin.

    Raises UsageError when the file cannot be read.
    """
    try:
        with sys.stdin.buffer if path == Path("-") else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path}, line {number}", line
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
