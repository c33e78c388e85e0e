"""The records under way, and the events they carry."""

from dataclasses import dataclass

from worker.intake.deferral import Deferral
from worker.intake.ledger import Ticket
from worker.intake.log import Output, Record
from worker.judging.job import Job
from worker.outbox import SourceFields


@dataclass(slots=True, eq=False)
class PackWork:
    """A pack under way (worker.intake.packs); it is finished when the last of its records is."""

    outputs: list[tuple[Output, ...]]
    """Of each record in it."""
    remaining: int


@dataclass(slots=True, eq=False)
class RecordWork:
    """A record whose events are judged one by one; it is finished when the last of them is."""

    record: Record
    ticket: Ticket
    """Of the pack, for a record of one."""
    outputs: list[tuple[Output, ...]]
    remaining: int
    deferral: Deferral | None = None
    """Of a record that holds an event which was moved."""
    pack: PackWork | None = None
    slot: int = 0
    """Where it stands in its pack."""

    @property
    def source(self) -> SourceFields:
        """Where its first event first stood."""
        if self.deferral is None:
            return source_of(self.record, self.slot)
        first = self.deferral.source
        return {"topic": first.topic, "partition": first.partition, "offset": first.offset, "index": first.index}


@dataclass(slots=True, eq=False)
class RecordJob(Job):
    """One event of a record."""

    work: RecordWork
    index: int

    @property
    def first_seen_ms(self) -> int:
        """When the event first came into the log, by the log's time; 0 where that is not known."""
        deferral = self.work.deferral
        return self.work.record.timestamp_ms if deferral is None else deferral.first_seen_ms

    @property
    def source(self) -> SourceFields:
        """Where the event first stood."""
        if self.work.deferral is None and self.work.pack is None:
            return source_of(self.work.record, self.index)
        return self.work.source


def source_of(record: Record, index: int = 0) -> SourceFields:
    partition = record.partition
    return {"topic": partition.topic, "partition": partition.number, "offset": record.offset, "index": index}
