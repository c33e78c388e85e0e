"""Metrics by tenant and generator: as many as asked for, whatever is sent."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from worker.telemetry.cells import CellCounts
from worker.telemetry.metrics import Metrics
from worker.telemetry.top_labels import REVIEW_SECONDS


class Bench:
    def __init__(self, *, tenants: int = 2, generators: int = 2) -> None:
        self.registry, self.now = CollectorRegistry(), 0.0
        metrics = Metrics(self.registry)
        self.cells = CellCounts(metrics, tenants=tenants, generators=generators, clock=lambda: self.now)

    def send(self, tenant: str, generator: str | None, action: str, quality: float | None, times: int = 1) -> None:
        for _ in range(times):
            self.cells.count(tenant, generator, action, quality)
        self.cells.flush()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"sluice_cell_{name}", labels)

    def labels(self, name: str) -> set[str]:
        (family,) = [each for each in self.registry.collect() if each.name == "sluice_cell_routes"]
        return {sample.labels[name] for sample in family.samples}


def test_routes_and_qualities_are_told_by_tenant_and_generator() -> None:
    bench = Bench()
    bench.send("acme", "sd", "pass", 4.0, times=6)
    bench.send("acme", None, "review", None)
    bench.cells.flush()  # nothing is counted twice
    assert bench.value("routes_total", tenant="acme", generator="sd", action="pass") == 6
    assert bench.value("routes_total", tenant="acme", generator="unknown", action="review") == 1
    assert bench.value("quality_count", tenant="acme", generator="sd") == 6
    assert bench.value("quality_sum", tenant="acme", generator="sd") == 24
    assert bench.value("quality_count", tenant="acme", generator="unknown") is None


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=2), st.text(max_size=2)), max_size=60), st.integers(0, 3))
def test_there_are_never_more_labels_than_asked_for(events: Sequence[tuple[str, str]], most: int) -> None:
    bench = Bench(tenants=most, generators=most)
    for tenant, generator in events:
        bench.now += REVIEW_SECONDS / 3
        bench.send(tenant, generator, "pass", 3.0)
    assert len(bench.labels("tenant") - {"other"}) <= most
    assert len(bench.labels("generator") - {"other", "unknown"}) <= most


def test_a_generator_that_becomes_large_takes_the_place_of_a_small_one() -> None:
    bench = Bench(generators=1)
    bench.send("acme", "made-up", "pass", 3.0)
    bench.send("acme", "sd", "pass", 3.0, times=10)
    assert bench.labels("generator") == {"made-up", "other"}
    bench.now += REVIEW_SECONDS
    bench.send("acme", "sd", "pass", 3.0, times=10)
    bench.send("acme", "sd", "pass", 3.0, times=10)
    assert bench.labels("generator") == {"sd", "other"}
    assert bench.value("quality_count", tenant="acme", generator="made-up") is None
    assert bench.value("routes_total", tenant="acme", generator="sd", action="pass") == 10
