"""What is under way: a record and the events it carries."""

from dataclasses import dataclass, field

from schemas import ImageEvent
from worker.intake.ledger import Ticket
from worker.intake.log import Output, Record
from worker.outbox import SourceFields, TimingFields


@dataclass(slots=True, eq=False)
class RecordWork:
    """A record whose events are judged one by one; it is finished when the last of them is."""

    record: Record
    ticket: Ticket
    outputs: list[tuple[Output, ...]]
    remaining: int


@dataclass(slots=True, eq=False)
class Job:
    """One event on its way to a verdict. Times are seconds of the monotonic clock, stages in milliseconds."""

    work: RecordWork
    index: int
    event: ImageEvent
    polled_at: float
    content_hash: str | None = None
    attempts: int = 0
    first_failed_at: float | None = None
    probes: int = 0
    """Attempts that failed while the store seemed to be down, since `probed_since`."""
    probed_since: float | None = None
    engine_failures: int = 0
    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    engine_ms: float = 0.0
    waiting: list["Job"] = field(default_factory=list)
    """Jobs of the same image and prompt that wait for this one's scores."""

    @property
    def source(self) -> SourceFields:
        return source_of(self.work.record, self.index)

    def timings(self, now: float) -> TimingFields:
        return {
            "fetch_ms": self.fetch_ms,
            "decode_ms": self.decode_ms,
            "engine_ms": self.engine_ms,
            "total_ms": round((now - self.polled_at) * 1000, 3),
        }


def source_of(record: Record, index: int = 0) -> SourceFields:
    partition = record.partition
    return {"topic": partition.topic, "partition": partition.number, "offset": record.offset, "index": index}
