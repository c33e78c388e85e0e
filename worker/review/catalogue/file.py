"""The catalogue's SQLite file: its tables, and connections to it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.intake.log import LogError
from worker.intake.sqlite_topics import transaction

FORMAT: Final = 3
BUSY_SECONDS: Final = 10.0
CACHE_KIB: Final = 65_536
"""Of the writer."""

SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    """CREATE TABLE positions (
        id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL,
        UNIQUE (topic, number))""",
    # The id is when the item came, in microseconds, made unique: the newest first is by falling id.
    """CREATE TABLE items (
        id INTEGER PRIMARY KEY, item_id TEXT NOT NULL UNIQUE, partition INTEGER NOT NULL, offset INTEGER NOT NULL,
        placed_at REAL NOT NULL, event_id TEXT NOT NULL, content_hash TEXT, queue TEXT NOT NULL, tenant TEXT NOT NULL,
        generator TEXT, quality REAL, due REAL NOT NULL, cluster TEXT NOT NULL, status TEXT NOT NULL,
        alone INTEGER NOT NULL, closed_at REAL)""",
    "CREATE INDEX items_place ON items (partition, offset)",
    "CREATE INDEX items_event ON items (event_id)",
    "CREATE INDEX items_content ON items (content_hash) WHERE content_hash IS NOT NULL",
    "CREATE INDEX items_closed ON items (closed_at) WHERE closed_at IS NOT NULL",
    "CREATE TABLE bodies (id INTEGER PRIMARY KEY, item BLOB NOT NULL, sketch BLOB)",
    """CREATE TABLE decisions (
        item_id TEXT NOT NULL, partition INTEGER NOT NULL, offset INTEGER NOT NULL, written_at REAL NOT NULL,
        body BLOB NOT NULL, PRIMARY KEY (item_id, partition, offset)) WITHOUT ROWID""",
    "CREATE INDEX decisions_place ON decisions (partition, offset)",
    # What was decided, by whom, with which reasons: what decisions can be searched by.
    """CREATE TABLE marks (
        kind TEXT NOT NULL, value TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (kind, value, id)) WITHOUT ROWID""",
    "CREATE INDEX marks_of ON marks (id)",
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE TABLE buckets (number INTEGER PRIMARY KEY, id INTEGER NOT NULL)",
    """CREATE VIRTUAL TABLE texts USING fts5 (
        prompt, ids, notes, content = '', tokenize = "unicode61 remove_diacritics 2", prefix = '3')""",
)


def connect(path: Path, *, cache_kib: int = CACHE_KIB) -> sqlite3.Connection:
    """Opens the file, and makes it if there is none; one of another format is made again, as all in it comes from the
    topics. Raises LogError.
    """
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        db = _opened(path, cache_kib)
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found not in (0, FORMAT):
            db.close()
            remove(path)
            db = _opened(path, cache_kib)
        if db.execute("PRAGMA user_version").fetchone() != (FORMAT,):
            with transaction(db):
                if not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                    for statement in SCHEMA:
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {FORMAT}")
        return db


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns errors of SQLite and of the file system into a LogError that names the file and says what to do."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise LogError(f"{path}: {error}; the file may be removed, it is made again from the topics") from error


def _opened(path: Path, cache_kib: int) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(
        "PRAGMA synchronous = NORMAL"
    )  # after a loss of power its positions are older, and it reads on from there
    db.execute(f"PRAGMA cache_size = -{cache_kib}")
    return db
