"""Many observations at once count as one by one."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram

from worker.telemetry.bulk_histogram import BulkHistogram

BOUNDS = (0.25, 0.5, 1.0, 8.0)
AMOUNTS = st.one_of(st.sampled_from([0.0, *BOUNDS]), st.integers(0, 400).map(lambda eighth: eighth / 8))


def samples(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    return {
        (sample.name, sample.labels["stage"], sample.labels.get("le", "")): sample.value
        for metric in registry.collect()
        for sample in metric.samples
        if not sample.name.endswith("_created")
    }


@given(st.lists(st.lists(AMOUNTS)))
def test_the_samples_are_those_of_prometheus_own_histogram(turns: list[list[float]]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    bulk = BulkHistogram("seconds", "Seconds.", ["stage"], registry=ours, buckets=BOUNDS).labels("total")
    single = Histogram("seconds", "Seconds.", ["stage"], registry=theirs, buckets=BOUNDS).labels("total")
    for amounts in turns:
        bulk.observe_all(amounts)
        for amount in amounts:
            single.observe(amount)
    assert samples(ours) == samples(theirs)
