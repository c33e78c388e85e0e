"""What traced code needs without OpenTelemetry: a stage's span where there is a trace, and the caller's context."""

from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Final, Protocol

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"

CALLER: ContextVar[str | None] = ContextVar("traceparent", default=None)
"""The traceparent (https://www.w3.org/TR/trace-context/) for calls to other processes; None where nothing is traced."""

_UNTRACED: Final = nullcontext()


class TracedStages(Protocol):
    """As `worker.telemetry.tracing.EventTrace`."""

    def stage(self, name: str) -> AbstractContextManager[None]: ...


def stage_of(trace: TracedStages | None, name: str) -> AbstractContextManager[None]:
    """The span of one stage of the event; does nothing without a trace. An exception is noted in it and goes on."""
    return _UNTRACED if trace is None else trace.stage(name)
