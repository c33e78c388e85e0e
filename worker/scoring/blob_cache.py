"""Caches compiled OpenVINO graphs on disk for later processes."""

import hashlib
import os
import stat
from collections.abc import Sequence
from pathlib import Path

import structlog

from worker.atomic_files import write_atomically

log = structlog.get_logger(__name__)

KEPT = 16
"""Maximum number of files. The least recently used are removed."""

_DIGEST_BYTES = hashlib.sha256().digest_size


class BlobCache:
    """Files in one folder, named by a digest of everything that the compiled graph depends on.

    Errors are logged and never raised; the graph is then compiled again. A file is used only if no other user could
    have written it and its digest matches, because OpenVINO loads it as native code and data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, key: Sequence[str]) -> bytes | None:
        """The blob of a key; None if there is no usable one."""
        path = self._path(key)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    log.warning("compiled_graph_not_trusted", path=str(path), reason="other users may write it")
                    return None
                digest, blob = file.read(_DIGEST_BYTES), file.read()
            if hashlib.sha256(blob).digest() != digest:
                log.warning("compiled_graph_damaged", path=str(path))
                return None
            os.utime(path)
        except FileNotFoundError:
            return None
        except OSError as error:
            log.info("compiled_graph_not_read", path=str(path), reason=str(error))
            return None
        return blob

    def write(self, key: Sequence[str], blob: bytes) -> None:
        """Stores a blob, and removes the least recently used files."""
        path = self._path(key)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_atomically(path, hashlib.sha256(blob).digest() + blob, mode=0o600)
            by_use = sorted(self._folder.glob("*.blob"), key=lambda file: file.stat().st_mtime, reverse=True)
            for old in by_use[KEPT:]:
                old.unlink(missing_ok=True)
        except OSError as error:
            log.info("compiled_graph_not_kept", path=str(path), reason=str(error))

    def _path(self, key: Sequence[str]) -> Path:
        return self._folder / f"{hashlib.sha256(chr(0).join(key).encode()).hexdigest()}.blob"
