"""Exports a replica's Prometheus metrics through Ray."""

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog
from prometheus_client import CollectorRegistry
from ray.util.metrics import Gauge

log = structlog.get_logger(__name__)

EXPORT_SECONDS = 5.0
FROM_PYTHON = "process_"
"""Ray exports process metrics itself."""


class Instrument(Protocol):
    def set(self, value: float, tags: dict[str, str]) -> None: ...


class RayMetrics:
    """Passes each sample of a registry to Ray every few seconds. Ray exports it with the prefix `ray_` and the
    replica's tags at each node's metrics address.

    Replicas cannot have metrics ports of their own, because Prometheus would not know them. Every sample, including
    histogram buckets, is a gauge with the current value. So values are exact, and counters start at 0 with each
    replica, as Prometheus expects. A series that ended is set to 0 once.
    """

    def __init__(
        self,
        registry: Callable[[], CollectorRegistry | None],
        tags: dict[str, str],
        gauge: Callable[[str, str, tuple[str, ...]], Instrument] = Gauge,
    ) -> None:
        """`registry` returns the registry to export now."""
        self._registry = registry
        self._tags = tags
        self._gauge = gauge
        self._gauges: dict[str, Instrument] = {}
        self._told: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sluice-metrics", daemon=True)

    def start(self) -> None:
        """Starts exporting, on its own thread, until `close`."""
        self._thread.start()

    def close(self) -> None:
        """Exports once more and stops. Does not wait."""
        self._stop.set()

    def export(self) -> None:
        """Passes the current samples to Ray."""
        told = set()
        for name, text, labels, value in self._samples():
            if name not in self._gauges:
                self._gauges[name] = self._gauge(name, text, (*self._tags, *labels))
            self._gauges[name].set(value, self._tags | labels)
            told.add((name, tuple(labels.items())))
        for name, labels_of_old in self._told - told:
            self._gauges[name].set(0.0, self._tags | dict(labels_of_old))
        self._told = told

    def _samples(self) -> Iterator[tuple[str, str, dict[str, str], float]]:
        registry = self._registry()
        for family in registry.collect() if registry is not None else ():
            for sample in family.samples:
                if not sample.name.startswith(FROM_PYTHON) and not sample.name.endswith("_created"):
                    yield sample.name, family.documentation, dict(sample.labels), sample.value

    def _run(self) -> None:
        while not self._stop.wait(EXPORT_SECONDS):
            self._try()
        self._try()

    def _try(self) -> None:
        try:
            self.export()
        except Exception:  # a failed export must not end the replica
            log.exception("metrics_not_exported")
