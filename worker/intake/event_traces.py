"""Traces of events: begun when a record is read, ended with the verdict, passed on in the headers of what is written.

Attributes follow https://opentelemetry.io/docs/specs/semconv/messaging/kafka/.
"""

import time
from collections.abc import Callable
from typing import Final

from opentelemetry.trace import SpanKind, Status, StatusCode

from schemas import ImageEvent
from worker.intake.committer import CommitOutcome
from worker.intake.log import Record
from worker.telemetry.trace_context import TRACEPARENT
from worker.telemetry.tracing import Attributes, EventTrace, Tracing, context_in, described

MOST_COMMITS_TRACED: Final = 1000
"""Events of one commit that get a span for it."""


class EventTraces:
    """Begins and completes the traces of one worker's events. Loads OpenTelemetry, so made only where traces are on."""

    def __init__(self, tracing: Tracing, is_sampled: Callable[[], bool], *, group_id: str) -> None:
        """`is_sampled` decides for events whose record has no trace."""
        self._tracing = tracing
        self._is_sampled = is_sampled
        self._group_id = group_id

    def begin(self, record: Record, event: ImageEvent) -> EventTrace | None:
        """The event's trace; None where it is not traced."""
        topic = record.partition.topic

        def attributes() -> Attributes:
            return {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": topic,
                "messaging.destination.partition.id": str(record.partition.number),
                "messaging.kafka.offset": record.offset,
                "messaging.consumer.group.name": self._group_id,
                "sluice.event.id": event.id,
                "sluice.tenant": event.tenant,
                "sluice.log_wait_ms": max(0, int(time.time() * 1000) - record.timestamp_ms),
            }

        name = f"process {topic}"
        return self._tracing.begin(name, record.headers, SpanKind.CONSUMER, self._is_sampled, attributes)

    def committed(self, outcome: CommitOutcome) -> None:
        """A span in each event's trace for the transaction that wrote its verdict, or tried to."""
        end = time.time_ns()
        start = end - int(outcome.seconds * 1e9)
        seen: set[bytes] = set()
        for output in outcome.batch.outputs:
            for name, value in output.headers:
                if name != TRACEPARENT or value in seen or len(seen) >= MOST_COMMITS_TRACED:
                    continue
                seen.add(value)
                parent = context_in(output.headers)
                if not parent.get_span_context().trace_flags.sampled:
                    continue
                attributes = {"sluice.commit.records": outcome.batch.records}
                span = self._tracing.child("commit", parent, attributes=attributes, start_ns=start)
                if outcome.error is not None:
                    span.set_status(Status(StatusCode.ERROR, described(outcome.error)))
                span.end(end)
