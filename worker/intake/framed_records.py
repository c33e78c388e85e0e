"""Records whose values are framed by a schema registry, on their way from the log to the intake."""

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import structlog

from worker.intake.avro_values import AvroMismatch
from worker.intake.log import Partition, Record
from worker.intake.schema_frames import read_frame
from worker.intake.schema_registry import Schema

log = structlog.get_logger(__name__)


class Schemas(Protocol):
    """`SchemaRegistry`, as seen from here."""

    def schema(self, schema_id: int) -> Schema | None: ...

    def want_only(self, ids: Iterable[int]) -> None: ...

    def trouble(self) -> str | None: ...

    def close(self) -> None: ...


class FramedRecords:
    """Turns framed values into JSON, each partition in order.

    Records whose schema is not known yet are held, with all that follow in their partition; `waiting` partitions should
    not be read meanwhile. A value that does not fit its schema is passed on as it is: it becomes a dead letter. Without
    `schemas` all values are. For one thread, but for `problems`.
    """

    def __init__(self, schemas: Schemas | None) -> None:
        self._schemas = schemas
        self._held: dict[Partition, deque[Record]] = {}

    @property
    def waiting(self) -> frozenset[Partition]:
        return frozenset(self._held)

    def problems(self) -> tuple[str, ...]:
        """Why records wait. From any thread."""
        trouble = self._schemas.trouble() if self._schemas is not None and self._held else None
        return (trouble,) if trouble is not None else ()

    def forget(self, partitions: Iterable[Partition]) -> None:
        """These were revoked from the member or assigned to it again; their held records will be read again."""
        if self._schemas is None:
            return
        for partition in partitions:
            self._held.pop(partition, None)
        frames = (read_frame(record.value) for held in self._held.values() for record in held)
        self._schemas.want_only({frame.schema_id for frame in frames if frame is not None})

    def read(self, records: Sequence[Record]) -> list[Record]:
        """The records that can go on now: of those that were held, and of these."""
        if self._schemas is None:
            return list(records)
        for record in records:
            self._held.setdefault(record.partition, deque()).append(record)
            frame = read_frame(record.value)
            if frame is not None:  # so that all schemas are on their way, not only the first
                self._schemas.schema(frame.schema_id)
        schemas = self._schemas
        return [record for partition in list(self._held) for record in self._released(partition, schemas)]

    def close(self) -> None:
        if self._schemas is not None:
            self._schemas.close()

    def _released(self, partition: Partition, schemas: Schemas) -> list[Record]:
        held = self._held[partition]
        done: list[Record] = []
        while held and (read := _read(held[0], schemas)) is not None:
            done.append(read)
            held.popleft()
        if not held:
            del self._held[partition]
        return done


def _read(record: Record, schemas: Schemas) -> Record | None:
    """The record as the intake reads it; None while its schema is not known."""
    frame = read_frame(record.value)
    if frame is None:
        return record
    schema = schemas.schema(frame.schema_id)
    if schema is None:
        return None
    if schema.kind == "JSON":
        return record._replace(value=frame.data)
    if schema.read_avro is None:
        return record
    try:
        return record._replace(value=schema.read_avro(frame.data))
    except AvroMismatch as error:
        log.warning("value_does_not_fit_schema", schema_id=frame.schema_id, error=str(error))
        return record
