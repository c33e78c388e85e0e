"""Decisions in the traces of the events that they are about. Loads OpenTelemetry, so made only where traces are on."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Final

import structlog
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

from schemas import Decision, ReviewItem
from worker.intake.log import LogError, Partition
from worker.review.topics import Topics
from worker.telemetry.tracing import Tracing, carrier_of, context_in, described

log = structlog.get_logger(__name__)

Place = tuple[Partition, int]
Made = tuple[ReviewItem, Decision, Place]
"""A decision about an item, and where the item's record stands."""
Headers = tuple[tuple[str, bytes], ...]

LOOKUP_SECONDS: Final = 0.5
"""A decision waits so long for the headers of its items; then it is recorded without them."""


class DecisionTraces:
    """The context of an item's trace stands in the headers of its record, which is read when a decision is made."""

    def __init__(self, tracing: Tracing, topics: Topics) -> None:
        self._tracing = tracing
        self._topics = topics
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="desk-traces")

    @contextmanager
    def recording(self, made: Sequence[Made]) -> Iterator[Mapping[str, Headers]]:
        """Around the recording of decisions: gives the headers of each decision's record, by its item. In the trace, a
        decision is a span from the moment when its item came."""
        contexts = self._contexts({item.item_id: place for item, _, place in made})
        spans = {
            item.item_id: self._begun(contexts[item.item_id], item, decision)
            for item, decision, _ in made
            if item.item_id in contexts
        }
        try:
            yield {item_id: _headers(span) for item_id, span in spans.items()}
        except Exception as error:
            for span in spans.values():
                span.set_status(Status(StatusCode.ERROR, described(error)))
            raise
        finally:
            for span in spans.values():
                span.end()

    def close(self) -> None:
        self._reader.shutdown(wait=False, cancel_futures=True)
        self._tracing.close()

    def _contexts(self, places: Mapping[str, Place]) -> dict[str, Span]:
        """The recorded traces of items, by item; `places` are their records'."""
        reads = {item_id: self._reader.submit(self._context, place) for item_id, place in places.items()}
        wait(reads.values(), timeout=LOOKUP_SECONDS)
        found = {item_id: read.result(timeout=0) for item_id, read in reads.items() if read.done()}
        for read in reads.values():
            read.cancel()
        return {item_id: span for item_id, span in found.items() if span.get_span_context().trace_flags.sampled}

    def _begun(self, context: Span, item: ReviewItem, decision: Decision) -> Span:
        attributes = {
            "sluice.item.id": item.item_id,
            "sluice.review.queue": item.queue,
            "sluice.review.outcome": decision.outcome,
            "sluice.review.resolution": decision.resolution or "",
        }
        came = int(item.created_at.timestamp() * 1e9)
        return self._tracing.child("review", context, kind=SpanKind.PRODUCER, attributes=attributes, start_ns=came)

    def _context(self, place: Place) -> Span:
        try:
            record = self._topics.record(*place)
        except LogError as error:
            log.debug("trace_not_found", error=str(error))
            record = None
        return context_in(record.headers if record is not None else ())


def _headers(span: Span) -> Headers:
    return tuple((name, value.encode()) for name, value in carrier_of(span).items())
