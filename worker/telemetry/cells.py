"""What comes from each tenant and generator, as metrics."""

from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Final

from worker.telemetry.metrics import Metrics
from worker.telemetry.top_labels import TopLabels

UNKNOWN: Final = "unknown"
"""The label of images whose sender names no generator."""
_Cell = tuple[str, str]


class CellCounts:
    """Counts routes and qualities by tenant and generator, and adds them to the metrics in `flush`. For one thread.

    The largest `tenants` and `generators` have labels of their own; all others are `other`. The series of one
    that falls out of the largest end.
    """

    def __init__(self, metrics: Metrics, *, tenants: int, generators: int, clock: Callable[[], float]) -> None:
        self._metrics = metrics
        self._tenants = TopLabels(tenants, clock)
        self._generators = TopLabels(generators, clock)
        self._routes: Counter[tuple[str, str, str]] = Counter()
        self._qualities: defaultdict[_Cell, list[float]] = defaultdict(list)
        self._shown: set[tuple[str, str, str]] = set()

    def count(self, tenant: str, generator: str | None, action: str, quality: float | None) -> None:
        """Counts one image; without a quality where it could not be scored."""
        cell = (tenant, generator or "")
        self._routes[*cell, action] += 1
        if quality is not None:
            self._qualities[cell].append(quality)

    def flush(self) -> None:
        """Adds what was counted since the last time to the metrics."""
        if not self._routes:
            return
        by_tenant: Counter[str] = Counter()
        by_generator: Counter[str] = Counter()
        for (tenant, generator, _), number in self._routes.items():
            by_tenant[tenant] += number
            if generator:
                by_generator[generator] += number
        tenants = self._tenants.count(by_tenant)
        generators = {"": UNKNOWN, **self._generators.count(by_generator)}
        for (tenant, generator, action), number in self._routes.items():
            labels = (tenants[tenant], generators[generator], action)
            self._metrics.cell_routes.labels(*labels).inc(number)
            self._shown.add(labels)
        for (tenant, generator), qualities in self._qualities.items():
            self._metrics.cell_quality.labels(tenants[tenant], generators[generator]).observe_all(qualities)
        self._routes.clear()
        self._qualities.clear()
        self._end({ended for ended, _ in self._tenants.review()}, {ended for ended, _ in self._generators.review()})

    def _end(self, tenants: set[str], generators: set[str]) -> None:
        """Ends the series of labels that others took the place of."""
        ended = {labels for labels in self._shown if labels[0] in tenants or labels[1] in generators}
        for labels in ended:
            self._metrics.cell_routes.remove(*labels)
        for tenant, generator in {labels[:2] for labels in ended}:
            self._metrics.cell_quality.remove(tenant, generator)
        self._shown -= ended
