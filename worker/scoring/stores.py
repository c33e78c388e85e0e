"""Storage of a model repository: files by name, each written atomically."""

import os
from pathlib import Path
from typing import Protocol

from worker.atomic_files import locked_folder, write_atomically


class RepositoryError(Exception):
    """A repository cannot be read or written. The message says what is wrong, where, and what to do."""


class StoreConflict(RepositoryError):
    """The file changed since it was read; nothing was written."""


class FileStore(Protocol):
    """Files by name (`mst-lite/1/manifest.json`). All methods raise RepositoryError if the store fails."""

    def where(self, name: str) -> str:
        """The file's address, for messages."""

    def read(self, name: str) -> bytes | None:
        """The file's content; None if it does not exist."""

    def write(self, name: str, data: bytes) -> None:
        """Writes or replaces a file atomically."""

    def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
        """Atomically writes a file if its content is still `seen` (None: no file). Raises StoreConflict if it is
        not.
        """

    def names(self, prefix: str = "") -> list[str]:
        """The names of all files that begin with the prefix, sorted."""

    def delete(self, name: str) -> None:
        """Removes a file, if there is one."""


class FolderStore:
    """Files below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def where(self, name: str) -> str:
        return str(self.folder / name)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.folder / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._failed("read", name, error) from error

    def write(self, name: str, data: bytes) -> None:
        target = self.folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, data)
        except OSError as error:
            raise self._failed("written", name, error) from error

    def replace(self, name: str, data: bytes, *, seen: bytes | None) -> None:
        try:
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            with locked_folder((self.folder / name).parent):
                if self.read(name) != seen:
                    raise conflict(self.where(name))
                self.write(name, data)
        except OSError as error:
            raise self._failed("written", name, error) from error

    def names(self, prefix: str = "") -> list[str]:
        folders = os.walk(self.folder, onerror=self._unlisted)
        paths = (Path(folder, name) for folder, _, files in folders for name in files if not name.startswith(".part-"))
        names = (path.relative_to(self.folder).as_posix() for path in paths if path.is_file())
        return sorted(name for name in names if name.startswith(prefix))

    def delete(self, name: str) -> None:
        try:
            (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise self._failed("removed", name, error) from error

    def _unlisted(self, error: OSError) -> None:
        """A missing folder counts as empty; a folder that cannot be read is an error."""
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise RepositoryError(f"{error.filename}: cannot be read: {error.strerror}") from error

    def _failed(self, what: str, name: str, error: OSError) -> RepositoryError:
        return RepositoryError(f"{self.where(name)}: cannot be {what}: {error.strerror}")


def conflict(where: str) -> StoreConflict:
    """The error of a file that changed since it was read."""
    return StoreConflict(f"{where} was changed at the same time; nothing was written; try again")
