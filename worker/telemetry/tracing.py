"""OpenTelemetry traces, sent to a collector by OTLP over HTTP. Needs the extra `otel`; see docs/tracing.md.

Import this module only where traces are on (`open_tracing` does): without them nothing of OpenTelemetry is loaded.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Final

import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import (
    INVALID_SPAN,
    Link,
    NonRecordingSpan,
    Span,
    SpanKind,
    Status,
    StatusCode,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from worker.telemetry.trace_context import CALLER, TRACEPARENT, TRACESTATE

log = structlog.get_logger(__name__)

Headers = Sequence[tuple[str, bytes | None]]
Attributes = Mapping[str, AttributeValue]

LONGEST_HEADER: Final = 512
"""Bytes of a trace header that are looked at: senders may write anything."""
EXPORT_SECONDS: Final = 5.0
CLOSE_SECONDS: Final = 3.0
"""How long the end of a process waits for the last spans to be sent."""

_PROPAGATOR: Final = TraceContextTextMapPropagator()


class EventTrace:
    """The part of a trace that one event adds here: a span from its arrival to its verdict, with one for each stage.

    Of a trace that its sender does not record, it only passes the context on.
    """

    __slots__ = ("_span", "_tracing", "headers")

    def __init__(self, tracing: "Tracing", span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self.headers = tuple((name, value.encode()) for name, value in carrier_of(span).items())
        """For the records that this event becomes."""

    @property
    def is_recording(self) -> bool:
        return self._span.is_recording()

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return format(self._span.get_span_context().trace_id, "032x")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A span within the event's. An exception is noted in it and goes on."""
        if not self._span.is_recording():
            yield
            return
        with _ended(self._tracing.child(name, self._span)):
            yield

    def end(self, attributes: Attributes, error: str | None = None) -> None:
        """Ends the event's span. `error`: why the event could not be judged."""
        self._span.set_attributes(attributes)
        if error is not None:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end()

    def engine_span(self, others: "Sequence[EventTrace]", size: int) -> Span:
        """A span for the batch that this event and the `others` share, with links to theirs."""
        links = [Link(other._span.get_span_context()) for other in others]
        return self._tracing.child("engine", self._span, attributes={"sluice.batch.size": size}, links=links)


@contextmanager
def engine_spans(traces: Sequence[EventTrace], size: int) -> Iterator[None]:
    """The engine's span of a batch of `size` images in the trace of each of these events. Calls to other processes made
    within belong to the first."""
    recorded = [trace for trace in traces if trace.is_recording]
    if not recorded:
        yield
        return
    spans = [trace.engine_span([other for other in recorded if other is not trace], size) for trace in recorded]
    token = CALLER.set(carrier_of(spans[0])[TRACEPARENT])
    try:
        yield
    except Exception as error:
        for span in spans:
            span.set_status(Status(StatusCode.ERROR, described(error)))
        raise
    finally:
        CALLER.reset(token)
        for span in spans:
            span.end()


class Tracing:
    """Makes spans and exports them in batches, on a thread of its own. What the collector does not take is dropped and
    never waited for. Safe for many threads."""

    def __init__(self, exporter: SpanExporter, service: str) -> None:
        """`service`: the service's name in traces; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over it."""
        ours = Resource(
            {
                "service.name": service,
                "service.version": _version(),
                "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
            }
        )
        # Not the global provider, which Ray uses for itself. Whoever makes a root span has decided to record it.
        self._provider = TracerProvider(
            sampler=ParentBased(ALWAYS_ON),
            resource=ours.merge(OTELResourceDetector().detect()),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("sluice")

    def begin(
        self,
        name: str,
        headers: Headers,
        kind: SpanKind,
        is_sampled: Callable[[], bool],
        attributes: Callable[[], Attributes],
    ) -> EventTrace | None:
        """The event's part of the trace that its record's headers name. Without such headers a new trace, if it
        `is_sampled`, else None."""
        parent = context_in(headers)
        if not parent.get_span_context().is_valid:
            if not is_sampled():
                return None
        elif not parent.get_span_context().trace_flags.sampled:
            return EventTrace(self, parent)
        context = set_span_in_context(parent)
        return EventTrace(self, self._tracer.start_span(name, context, kind, attributes=attributes()))

    def child(
        self,
        name: str,
        parent: Span,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: Attributes | None = None,
        links: Sequence[Link] = (),
        start_ns: int | None = None,
    ) -> Span:
        """A started span below `parent`. `start_ns`: nanoseconds since 1970; absent: now."""
        context = set_span_in_context(parent)
        return self._tracer.start_span(name, context, kind, attributes=attributes, links=links, start_time=start_ns)

    @contextmanager
    def served(self, name: str, traceparent: str | None) -> Iterator[None]:
        """A span for what another process asked for, in that process's trace; nothing where it named none."""
        parent = context_in([(TRACEPARENT, traceparent.encode())] if traceparent else [])
        if not parent.get_span_context().trace_flags.sampled:
            yield
            return
        with _ended(self.child(name, parent, kind=SpanKind.SERVER)):
            yield

    def close(self) -> None:
        """Sends what is left, for at most CLOSE_SECONDS."""
        thread = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        thread.start()
        thread.join(timeout=CLOSE_SECONDS)


class CountingExporter(SpanExporter):
    """Counts the spans that the exporter sent, and those that it could not send."""

    def __init__(self, exporter: SpanExporter, count: Callable[[str, int], None]) -> None:
        """`count` is called with `sent` or `failed`, and how many."""
        self._exporter = exporter
        self._count = count

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        self._count("sent" if result is SpanExportResult.SUCCESS else "failed", len(spans))
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


@contextmanager
def _ended(span: Span) -> Iterator[None]:
    """Ends the span after the block. An exception is noted in it and goes on."""
    try:
        yield
    except Exception as error:
        span.set_status(Status(StatusCode.ERROR, described(error)))
        raise
    finally:
        span.end()


def otlp_exporter(endpoint: str) -> SpanExporter:
    """Sends spans to the collector's address, such as http://collector:4318/v1/traces. Certificates, headers and
    compression are those of the standard OTEL_EXPORTER_OTLP_* variables."""
    return OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS)


def context_in(headers: Headers) -> Span:
    """The span that the headers of a record name; an invalid one where they name none, or not as W3C says."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in (TRACEPARENT, TRACESTATE) and value is not None and name not in carrier:
            carrier[name] = value[:LONGEST_HEADER].decode("ascii", "replace")
    if TRACEPARENT not in carrier:
        return INVALID_SPAN
    span = get_current_span(_PROPAGATOR.extract(carrier, set_span_in_context(INVALID_SPAN)))
    return NonRecordingSpan(span.get_span_context())


def carrier_of(span: Span) -> dict[str, str]:
    """The W3C headers that name the span."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier, set_span_in_context(span))
    return carrier


def described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:LONGEST_HEADER]


def _version() -> str:
    try:
        return version("sluice")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
