"""Topics in one SQLite file, for a worker without Kafka.

A topic has partitions, a partition has records with offsets from 0 on, and a record's key chooses its partition. The
file is in WAL mode: readers never wait, writers take turns, and processes can share it. Appended records survive a
kill -9 at any moment and a power loss, because every append waits for the disk (synchronous=FULL).
"""

import itertools
import json
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from zlib import crc32

from worker.intake.log import LogError, Output, Partition, Record
from worker.intake.sqlite_disk import disk_full, wanted_bytes

FINISHED = 2**62
"""The offset of a group that reads no more."""
_FORMAT = 2
_BUSY_SECONDS = 10.0
_TRIMMED_AT_ONCE = 1000

_SCHEMA = """
CREATE TABLE partitions (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, number INTEGER NOT NULL, next_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic, number));
CREATE TABLE records (
    partition INTEGER NOT NULL REFERENCES partitions, offset INTEGER NOT NULL, timestamp_ms INTEGER NOT NULL,
    key BLOB, value BLOB, headers TEXT,
    PRIMARY KEY (partition, offset));
CREATE TABLE offsets (
    group_id TEXT NOT NULL, partition INTEGER NOT NULL, next_offset INTEGER NOT NULL,
    PRIMARY KEY (group_id, partition)) WITHOUT ROWID;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Opens the file, and makes it when there is none. One thread at a time may use the connection. Raises LogError."""
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        db = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
            _migrate(db, path)
        except BaseException:
            db.close()
            raise
        return db


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    with transaction(db):
        (found,) = db.execute("PRAGMA user_version").fetchone()
        if found == 0 and not db.execute("SELECT 1 FROM sqlite_schema").fetchone():
            for statement in _SCHEMA.split(";\n"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {_FORMAT}")
        elif found == 1:  # groups had several members
            for table in ("groups", "members", "claims"):
                db.execute(f"DROP TABLE {table}")
            db.execute(f"PRAGMA user_version = {_FORMAT}")
        elif found != _FORMAT:
            raise LogError(f"{path} is not a log of format {_FORMAT} (found {found}); choose another data folder")


@contextmanager
def explained(path: Path, outputs: Sequence[Output] = ()) -> Iterator[None]:
    """Turns errors of SQLite and of the file system into a LogError that names the file, or a DiskFull; `outputs` is
    what was being written."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise disk_full(path, error, wanted_bytes(outputs)) or LogError(f"{path}: {text}") from error


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Everything inside happens, or nothing. Takes the write lock at once, so what is read inside stays true."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def partition_ids(db: sqlite3.Connection, topic: str) -> dict[Partition, int]:
    """The topic's partitions and their row ids, in order. Raises LogError when there is no such topic."""
    rows = db.execute("SELECT number, id FROM partitions WHERE topic = ? ORDER BY number", (topic,))
    ids = {Partition(topic, number): row_id for number, row_id in rows}
    if not ids:
        raise LogError(f"there is no topic {topic!r}; create it first (`sluice topics create`)")
    return ids


class Appender:
    """Adds records within a transaction of the caller. A keyless record goes to the next partition in turn."""

    def __init__(self, db: sqlite3.Connection, clock: Callable[[], float]) -> None:
        self._db = db
        self._clock = clock
        self._turn = itertools.count()

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        """Where each record stands now. Raises LogError when a topic does not exist."""
        ids: dict[str, list[int]] = {}
        rows: dict[int, list[tuple[bytes | None, bytes | None, str | None]]] = defaultdict(list)
        spots: list[tuple[Partition, int, int]] = []
        for output in outputs:
            if output.topic not in ids:
                ids[output.topic] = list(partition_ids(self._db, output.topic).values())
            choices = ids[output.topic]
            number = next(self._turn) if output.key is None else crc32(output.key)
            index = number % len(choices)
            contents = rows[choices[index]]
            spots.append((Partition(output.topic, index), choices[index], len(contents)))
            contents.append((output.key, output.value, _pack(output.headers)))
        timestamp_ms = int(self._clock() * 1000)
        starts: dict[int, int] = {}
        for row_id, contents in rows.items():
            (end,) = self._db.execute(
                "UPDATE partitions SET next_offset = next_offset + ? WHERE id = ? RETURNING next_offset",
                (len(contents), row_id),
            ).fetchone()
            starts[row_id] = end - len(contents)
            self._db.executemany(
                "INSERT INTO records (partition, offset, timestamp_ms, key, value, headers) VALUES (?, ?, ?, ?, ?, ?)",
                ((row_id, offset, timestamp_ms, *content) for offset, content in enumerate(contents, starts[row_id])),
            )
        return [(partition, starts[row_id] + index) for partition, row_id, index in spots]


def read_records(
    db: sqlite3.Connection, partition: Partition, row_id: int, position: int, max_records: int, max_bytes: int
) -> list[Record]:
    """Records from `position` on, at most so many, and no further one once `max_bytes` of values are reached."""
    records: list[Record] = []
    size = 0
    # closed at once: an unfinished cursor would hold its snapshot, and the WAL file could not be folded back
    with closing(
        db.execute(
            "SELECT offset, value, key, headers, timestamp_ms FROM records"
            " WHERE partition = ? AND offset >= ? ORDER BY offset LIMIT ?",
            (row_id, position, max_records),
        )
    ) as rows:
        for offset, value, key, headers, timestamp_ms in rows:
            records.append(Record(partition, offset, value, key, _unpack(headers), timestamp_ms))
            size += len(value or b"")
            if size >= max_bytes:
                break
    return records


class SqliteTopics:
    """Topics without a group: creating them, appending and reading. Not for use by several threads."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._db = connect(path)
        self._appender = Appender(self._db, clock)

    def create(self, partitions: Mapping[str, int]) -> None:
        """Makes the topics that do not exist yet; one that has fewer partitions gets more, none loses any.

        As in Kafka, more partitions move keys: the order of a key's records holds from then on only.
        """
        with explained(self._path), transaction(self._db):
            self._db.executemany(
                "INSERT OR IGNORE INTO partitions (topic, number) VALUES (?, ?)",
                [(topic, number) for topic, count in partitions.items() for number in range(count)],
            )

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        """Appends all or none; they are on the disk when it returns, which tells where each stands. Raises LogError."""
        with explained(self._path, outputs), transaction(self._db):
            return self._appender.append(outputs)

    def trim(self, starts: Mapping[Partition, int]) -> None:
        """Deletes the records before these offsets, a few at a time, so that writers need not wait long. Raises
        LogError."""
        with explained(self._path):
            for partition, offset in starts.items():
                row_id = partition_ids(self._db, partition.topic)[partition]
                left = 1
                while left:
                    with transaction(self._db):
                        left = self._db.execute(
                            "DELETE FROM records WHERE partition = ?1 AND offset IN (SELECT offset FROM records"
                            " WHERE partition = ?1 AND offset < ?2 ORDER BY offset LIMIT ?3)",
                            (row_id, offset, _TRIMMED_AT_ONCE),
                        ).rowcount

    def append_prepared(self, prepare: Callable[[], Sequence[Output]]) -> None:
        """Appends what `prepare` returns, all or none. Nobody else can append before that has happened, so what
        `prepare` reads, through whatever connection, stays true. Raises LogError."""
        with explained(self._path), transaction(self._db):
            self._appender.append(prepare())

    def ends(self, topic: str) -> dict[Partition, int]:
        """The offset that each partition's next record will have. Raises LogError."""
        with explained(self._path):
            partition_ids(self._db, topic)
            rows = self._db.execute("SELECT number, next_offset FROM partitions WHERE topic = ?", (topic,))
            return {Partition(topic, number): end for number, end in rows}

    def starts(self, topic: str) -> dict[Partition, int]:
        """The offset of each partition's oldest record that is kept; its end where none is. Raises LogError."""
        return self.offsets_at(topic, 0)

    def offsets_at(self, topic: str, timestamp_ms: int) -> dict[Partition, int]:
        """Of the records that are kept, the offset of the first one that came then or later; the partition's end where
        none did. Raises LogError."""
        with explained(self._path):
            partition_ids(self._db, topic)
            rows = self._db.execute(
                "SELECT number, coalesce((SELECT offset FROM records WHERE partition = id AND timestamp_ms >= ?"
                " ORDER BY offset LIMIT 1), next_offset) FROM partitions WHERE topic = ?",
                (timestamp_ms, topic),
            )
            return {Partition(topic, number): offset for number, offset in rows}

    def committed(self, group_id: str, topic: str) -> dict[Partition, int]:
        """The group's offsets, of the partitions where it has any. Raises LogError."""
        with explained(self._path):
            rows = self._db.execute(
                "SELECT number, offsets.next_offset FROM offsets JOIN partitions ON id = partition"
                " WHERE group_id = ? AND topic = ?",
                (group_id, topic),
            )
            return {Partition(topic, number): offset for number, offset in rows}

    def start_group(self, group_id: str, offsets: Mapping[Partition, int]) -> None:
        """Sets where a group that has no offsets of these partitions begins. Raises LogError."""
        self._set_offsets("INSERT OR IGNORE", group_id, offsets)

    def finish_group(self, group_id: str, topic: str) -> None:
        """Puts the group past everything, so that it holds back no record from being dropped. Raises LogError."""
        self._set_offsets("INSERT OR REPLACE", group_id, dict.fromkeys(self.ends(topic), FINISHED))

    def _set_offsets(self, insert: str, group_id: str, offsets: Mapping[Partition, int]) -> None:
        with explained(self._path), transaction(self._db):
            self._db.executemany(
                f"{insert} INTO offsets (group_id, partition, next_offset)"  # noqa: S608  # one of two constants
                " SELECT ?, id, ? FROM partitions WHERE topic = ? AND number = ?",
                [(group_id, offset, partition.topic, partition.number) for partition, offset in offsets.items()],
            )

    def read(
        self, positions: Mapping[Partition, int], *, max_records: int = 500, max_bytes: int = 16 * 1024 * 1024
    ) -> list[Record]:
        """What stands from these positions on: so much of each partition at most. Raises LogError."""
        with explained(self._path):
            ids = {topic: partition_ids(self._db, topic) for topic in {partition.topic for partition in positions}}
            return [
                record
                for partition, position in positions.items()
                for record in read_records(
                    self._db, partition, ids[partition.topic][partition], position, max_records, max_bytes
                )
            ]

    def close(self) -> None:
        self._db.close()


def _pack(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    if not headers:
        return None
    return json.dumps([(name, None if value is None else value.decode("latin-1")) for name, value in headers])


def _unpack(headers: str | None) -> tuple[tuple[str, bytes | None], ...]:
    if headers is None:
        return ()
    return tuple((name, None if value is None else value.encode("latin-1")) for name, value in json.loads(headers))
