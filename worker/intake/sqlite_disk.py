"""Tells a full disk under the embedded log from other faults, and how much space the next write needs."""

import errno
import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from worker.intake.log import LogError, Output

LEAST_BYTES = 1024 * 1024
"""Space that any write needs: a part of the write-ahead log, and of the database file it is copied into."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class DiskFull(LogError):
    """The disk of the log is full; nothing was written. Trying again helps once there is space."""


def disk_full(path: Path, error: sqlite3.Error | OSError, wanted: int = LEAST_BYTES) -> DiskFull | None:
    """The error to raise when an error of SQLite or the system means a full disk; None when it means something else.

    SQLite also calls it an I/O error, when a file beside its own cannot grow; then the free space decides.
    """
    free = _free_bytes(path)
    if isinstance(error, OSError):
        is_full = error.errno in _FULL
    else:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        is_full = code == sqlite3.SQLITE_FULL or (
            code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN) and free is not None and free < wanted
        )
    if not is_full:
        return None
    has = "" if free is None else f", {_size(free)} are free"
    return DiskFull(f"disk full: {path.parent} needs {_size(wanted)} for the next write{has}; make room to go on")


def wanted_bytes(outputs: Sequence[Output]) -> int:
    """Space that appending these needs: in the write-ahead log, and then in the database file."""
    written = sum(
        len(output.value or b"")
        + len(output.key or b"")
        + sum(len(name) + len(value or b"") for name, value in output.headers)
        for output in outputs
    )
    return LEAST_BYTES + 2 * written


def _free_bytes(path: Path) -> int | None:
    """What a user may still write on the disk of `path`."""
    for folder in (path.parent, *path.parent.parents):
        try:
            found = os.statvfs(folder)
        except OSError:
            continue
        return found.f_bavail * found.f_frsize
    return None


def _size(count: int) -> str:
    return f"{count / 1024 / 1024:.1f} MiB"
