"""The age of the oldest record without a verdict."""

from prometheus_client import CollectorRegistry

from worker.telemetry.metrics import Metrics


def test_the_age_of_the_oldest_record_grows_while_nothing_is_committed() -> None:
    registry = CollectorRegistry()
    now = 1000.0
    metrics = Metrics(registry, wall_clock=lambda: now)

    def age() -> float | None:
        return registry.get_sample_value("sluice_oldest_unjudged_seconds")

    assert age() == 0
    metrics.set_oldest(990_000)
    assert age() == 10
    now = 1060.0
    assert age() == 70
    metrics.set_oldest(None)
    assert age() == 0
