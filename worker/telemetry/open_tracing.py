"""Turns traces on where the settings ask for them."""

import random
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter

from worker.settings import TelemetrySettings

if TYPE_CHECKING:
    from worker.telemetry.tracing import Tracing


def open_tracing(
    settings: TelemetrySettings, service: str, registry: CollectorRegistry | None = None
) -> "Tracing | None":
    """None where `telemetry.traces_endpoint` is not set. `registry` gets `sluice_spans_total`. Raises
    ModuleNotFoundError where the extra `otel` is not installed."""
    if settings.traces_endpoint is None:
        return None
    from worker.telemetry.tracing import CountingExporter, Tracing, otlp_exporter

    exporter = otlp_exporter(settings.traces_endpoint)
    if registry is not None:
        counter = Counter(
            "spans", "Spans of traces, by what became of them.", ["result"], namespace="sluice", registry=registry
        )
        for result in ("sent", "failed"):
            counter.labels(result)
        exporter = CountingExporter(exporter, lambda result, count: counter.labels(result).inc(count))
    return Tracing(exporter, service)


def samples(settings: TelemetrySettings, rng: random.Random) -> bool:
    """Whether to trace an event whose sender does not say."""
    return rng.random() < settings.traces_share
