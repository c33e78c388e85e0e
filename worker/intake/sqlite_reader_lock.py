"""The lock that makes one process the reader of an embedded log."""

import sqlite3
from hashlib import sha256
from pathlib import Path


class ReaderLock:
    """Held by at most one `SqliteLog` of a group, in whatever process. The system releases it when its process ends.

    It is SQLite's own lock on a file beside the log: it works on each system, within one process too, and a child
    process does not inherit it. The file stays, empty.
    """

    def __init__(self, log: Path, group_id: str) -> None:
        self._path = log.with_name(f"{log.name}.{sha256(group_id.encode()).hexdigest()[:12]}.lock")
        self._db: sqlite3.Connection | None = None

    @property
    def held(self) -> bool:
        return self._db is not None

    def try_acquire(self) -> bool:
        """Whether it is held now; does not wait. Raises sqlite3.Error when the file cannot be used."""
        if self._db is not None:
            return True
        db = sqlite3.connect(self._path, timeout=0.0, isolation_level=None, check_same_thread=False)
        try:
            db.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            db.close()
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        self._db = db
        return True

    def release(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
