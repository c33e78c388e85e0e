"""Images on the worker's own disk."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from schemas import FailureReason, FileReference
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch.base import FetchedImage, ImageBody
from worker.images.memory import MemoryBudget

_CHUNK_BYTES = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # non-blocking: a pipe must not hold the thread

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG}
_DENIED = {errno.EACCES, errno.EPERM}


class FileFetcher:
    """Reads regular files below the configured roots, and nothing else.

    Links are resolved first and must stay below a root. The resolved path is then walked from the root one folder at a
    time without following links, so a folder swapped for a link in between leads nowhere. A relative path is looked for
    below each root in turn.
    """

    def __init__(self, roots: Sequence[Path], *, max_bytes: int, memory: MemoryBudget | None = None) -> None:
        self._roots = [_resolved(root) for root in roots]
        self._max_bytes = max_bytes
        self._memory = memory or MemoryBudget(max_bytes)

    def fetch(self, reference: FileReference) -> FetchedImage:
        place = f"file {reference.path!r}"
        try:
            root, parts = self._locate(Path(reference.path), place)
            descriptor = _open_below(root, parts)
            try:
                return self._read(descriptor, place)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise _failure(error, place) from error
        except ValueError as error:  # unpaired surrogates and similar
            raise ImageError(FailureReason.IMAGE_NOT_FOUND, f"{place} is not a path: {error}") from error

    def close(self) -> None:
        """Holds nothing."""

    def _locate(self, path: Path, place: str) -> tuple[Path, tuple[str, ...]]:
        """The root that holds the file, and the way from there, free of links and dots."""
        below = [
            (root, resolved.relative_to(root).parts)
            for root in self._roots
            if (resolved := _resolved(root / path)).is_relative_to(root)
        ]
        if not below:
            roots = ", ".join(map(str, self._roots)) or "none: set files.roots to allow some"
            raise ImageError(
                FailureReason.REFERENCE_REFUSED, f"{place} is outside the folders that may be read ({roots})"
            )
        return next(((root, parts) for root, parts in below if root.joinpath(*parts).exists()), below[0])

    def _read(self, descriptor: int, place: str) -> FetchedImage:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(FailureReason.REFERENCE_REFUSED, f"{place} is not a regular file")
        with ImageBody(self._memory, self._max_bytes, place, status.st_size) as body:
            while chunk := os.read(descriptor, _CHUNK_BYTES):
                body.add(chunk)  # the file may grow while it is read
            return body.image()


def _resolved(path: Path) -> Path:
    """Without links and dots. Unlike `Path.resolve`, a loop of links is left in, for `open` to refuse."""
    return Path(os.path.realpath(path))


def _open_below(root: Path, parts: tuple[str, ...]) -> int:
    """A descriptor of the file that `parts` lead to from `root`, reached without following any link."""
    folder = os.open(root, _FOLDER)
    try:
        for part in parts[:-1]:
            below = os.open(part, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        return os.open(parts[-1] if parts else ".", _FILE, dir_fd=folder)
    finally:
        os.close(folder)


def _failure(error: OSError, place: str) -> Exception:
    if error.errno in _NOT_THERE:
        return ImageError(FailureReason.IMAGE_NOT_FOUND, f"{place} does not exist")
    if error.errno in _DENIED:
        return ImageError(FailureReason.ACCESS_DENIED, f"{place} may not be read by this worker: {error.strerror}")
    if error.errno in (errno.ELOOP, errno.ENXIO):
        return ImageError(FailureReason.REFERENCE_REFUSED, f"{place} is not a regular file: {error.strerror}")
    return TransientFetchError(f"{place} could not be read: {error.strerror}")
