"""A worker's metrics reach Ray under their own names, with the replica's tags."""

from prometheus_client import CollectorRegistry

from worker.apps.ray_metrics import RayMetrics
from worker.telemetry.metrics import Metrics

TAGS = {"application": "intake", "deployment": "intake", "replica": "r1"}


class FakeRay:
    """What Ray's gauges were last set to, by name and tags."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    def gauge(self, name: str, text: str, keys: tuple[str, ...]) -> "FakeGauge":
        assert text
        return FakeGauge(self, name, keys)

    def value(self, name: str, **labels: str) -> float:
        return self.values[name, frozenset((TAGS | labels).items())]


class FakeGauge:
    def __init__(self, ray: FakeRay, name: str, keys: tuple[str, ...]) -> None:
        self._ray, self._name, self._keys = ray, name, keys

    def set(self, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(self._keys), "Ray refuses tags that were not announced"
        self._ray.values[self._name, frozenset(tags.items())] = value


def test_counters_and_histograms_arrive_with_the_values_that_prometheus_would_read() -> None:
    registry, ray = CollectorRegistry(), FakeRay()
    metrics = Metrics(registry)
    exported = RayMetrics(lambda: registry, TAGS, ray.gauge)

    metrics.events.labels("scored").inc(3)
    metrics.batch_size.observe(3)
    metrics.batch_size.observe(16)
    exported.export()

    assert ray.value("sluice_events_total", outcome="scored") == 3
    assert ray.value("sluice_batch_size_bucket", le="4.0") == 1
    assert ray.value("sluice_batch_size_bucket", le="+Inf") == 2
    assert ray.value("sluice_batch_size_sum") == 19
    names = {name for name, _ in ray.values}
    assert not {name for name in names if name.endswith("_created") or name.startswith("process_")}


def test_a_series_that_ended_is_told_as_nothing() -> None:
    registry, ray = CollectorRegistry(), FakeRay()
    metrics = Metrics(registry)
    exported = RayMetrics(lambda: registry, TAGS, ray.gauge)
    metrics.set_lag({("images", 0): 70, ("images", 1): 5})
    exported.export()

    metrics.set_lag({("images", 1): 6})
    exported.export()

    assert ray.value("sluice_consumer_lag_records", topic="images", partition="0") == 0
    assert ray.value("sluice_consumer_lag_records", topic="images", partition="1") == 6


def test_before_there_is_a_worker_nothing_is_told() -> None:
    ray = FakeRay()
    RayMetrics(lambda: None, TAGS, ray.gauge).export()
    assert ray.values == {}
