"""From a record to the jobs it carries."""

import structlog

from schemas import Failure, FailureReason
from worker.intake.ledger import Ticket
from worker.intake.log import Record
from worker.intake.parse import MalformedRecord, parse
from worker.intake.work import RecordJob, RecordWork
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


class Admission:
    """Reads records as they are polled."""

    def __init__(self, metrics: Metrics, *, max_event_bytes: int) -> None:
        self._metrics = metrics
        self._max_event_bytes = max_event_bytes

    def open(self, record: Record, ticket: Ticket, now: float) -> list[RecordJob] | Failure:
        """One job an event; none for a record that only announces other things than new images."""
        try:
            parsed = parse(record, max_bytes=self._max_event_bytes)
        except MalformedRecord as error:
            return Failure(reason=error.reason, message=str(error))
        except Exception as error:  # a fault of ours must not stop the stream
            log.exception("parse_failed", topic=record.partition.topic, offset=record.offset)
            message = f"{type(error).__name__} while reading the record"
            return Failure(reason=FailureReason.INTERNAL_ERROR, message=message)
        if parsed.ignored:
            self._metrics.events.labels("ignored").inc(parsed.ignored)
        work = RecordWork(record, ticket, [()] * len(parsed.events), len(parsed.events))
        return [RecordJob(event, now, work, index) for index, event in enumerate(parsed.events)]
