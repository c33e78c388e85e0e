import re
import time

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from schemas import FailureReason
from tests.unit.intake.member_bench import IN, Bench, FakeLog, FakeStore, event, http
from tests.unit.intake.pictures import png
from worker.images.errors import TransientFetchError
from worker.intake.log import Record
from worker.telemetry.metrics import Metrics


def sluice_families(registry: CollectorRegistry) -> dict[str, str]:
    text = generate_latest(registry).decode()
    return {family.name: family.type for family in text_string_to_metric_families(text) if "sluice" in family.name}


def test_every_metric_has_the_prefix_and_ends_with_its_unit() -> None:
    registry = CollectorRegistry()
    Metrics(registry)

    families = {name: kind for name, kind in sluice_families(registry).items() if not name.endswith("_created")}
    assert len(families) > 15
    for name, kind in families.items():
        assert re.fullmatch(r"sluice_[a-z_]+", name)
        if kind == "histogram":
            assert name.endswith(("_seconds", "_size", "_quality"))


def test_closed_labels_are_there_from_the_start() -> None:
    registry = CollectorRegistry()
    Metrics(registry)

    for reason in FailureReason:
        assert registry.get_sample_value("sluice_dead_letters_total", {"reason": reason}) == 0
    for outcome in ("scored", "cached", "failed", "ignored"):
        assert registry.get_sample_value("sluice_events_total", {"outcome": outcome}) == 0
    assert registry.get_sample_value("sluice_cache_requests_total", {"kind": "alias", "result": "hit"}) == 0


def test_the_loops_age_grows_until_it_turns() -> None:
    registry, now = CollectorRegistry(), [100.0]
    metrics = Metrics(registry, clock=lambda: now[0])

    now[0] = 107.5
    assert registry.get_sample_value("sluice_loop_age_seconds") == 7.5
    metrics.loop_turned()
    assert registry.get_sample_value("sluice_loop_age_seconds") == 0


def test_the_lag_of_a_partition_that_moved_away_ends() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)

    metrics.set_lag({("images.in", 0): 5, ("images.in", 1): 7})
    metrics.set_lag({("images.in", 1): 3})

    def lag(partition: int) -> float | None:
        labels = {"topic": "images.in", "partition": str(partition)}
        return registry.get_sample_value("sluice_consumer_lag_records", labels)

    assert (lag(0), lag(1)) == (None, 3)


def test_what_runs_is_told() -> None:
    registry = CollectorRegistry()
    Metrics(registry)

    assert re.search(rb'sluice_build_info\{version="[^"]+"\} 1.0', generate_latest(registry))


def test_a_member_tells_of_stores_that_fail_of_tenants_and_of_the_age_of_events_at_their_verdict() -> None:
    sent = time.time() - 40
    values = [event(str(i), http(str(i)), tenant=f"tenant-{i}") for i in range(2)]
    records = [Record(IN, i, value, timestamp_ms=int(sent * 1000)) for i, value in enumerate(values)]
    store = FakeStore({"http://images/0": [TransientFetchError("503"), png(1)], "http://images/1": png(2)})
    bench = Bench(FakeLog(records), store)
    bench.run_to(2)

    def value(name: str, **labels: str) -> float | None:
        return bench.registry.get_sample_value(f"sluice_{name}", labels)

    assert value("fetch_failures_total", store="http://images") == 1
    assert (value("tenant_events_total", tenant="tenant-0"), value("tenant_events_total", tenant="other")) == (1, 0)
    assert value("verdict_age_seconds_bucket", le="30.0") == 0
    assert value("verdict_age_seconds_count") == 2


def test_a_store_has_a_series_while_it_is_down() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.set_stores_down(["s3://a", "https://b"])
    metrics.set_stores_down(["s3://a"])
    assert registry.get_sample_value("sluice_store_down", {"store": "s3://a"}) == 1
    assert registry.get_sample_value("sluice_store_down", {"store": "https://b"}) is None
