"""The largest tenants have series of their own, however many there are, and nothing is counted twice."""

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from worker.telemetry.top_counter import TopCounter
from worker.telemetry.top_labels import KNOWN, REVIEW_SECONDS


class Bench:
    def __init__(self, top: int = 2) -> None:
        self.now = 0.0
        self.registry = CollectorRegistry()
        self.counter = TopCounter("events", "Events.", "tenant", self.registry, top=top, clock=lambda: self.now)

    def minute(self, **counts: int) -> None:
        self.counter.add(counts)
        self.now += REVIEW_SECONDS

    def series(self) -> dict[str, float]:
        (family,) = self.registry.collect()
        return {s.labels["tenant"]: s.value for s in family.samples if s.name.endswith("_total")}


def test_those_that_come_when_there_is_no_room_count_under_other() -> None:
    bench = Bench()
    bench.counter.add({"a": 5, "b": 4, "c": 3})
    assert bench.series() == {"a": 5, "b": 4, "other": 3}


def test_a_tenant_that_becomes_large_takes_the_place_of_the_smallest() -> None:
    bench = Bench()
    bench.minute(a=50, b=4)
    for _ in range(3):
        bench.minute(a=50, b=1, c=20)
    assert set(bench.series()) == {"a", "c", "other"}
    before = bench.series()["c"]
    bench.minute(c=7)
    assert bench.series()["c"] == before + 7


def test_tenants_of_the_same_size_do_not_take_turns() -> None:
    bench = Bench()
    for _ in range(20):
        bench.minute(a=10, b=10, c=11)
    assert set(bench.series()) == {"a", "b", "other"}


def test_no_tenant_has_a_series_where_none_is_wanted() -> None:
    bench = Bench(top=0)
    for _ in range(3):
        bench.minute(a=10)
    assert bench.series() == {"other": 30}


@given(st.lists(st.dictionaries(st.text("abcdefgh", min_size=1, max_size=2), st.integers(1, 9), max_size=9)))
def test_there_are_never_more_series_than_allowed(minutes: list[dict[str, int]]) -> None:
    bench = Bench(top=3)
    for counts in minutes:
        bench.counter.add(counts)
        bench.now += REVIEW_SECONDS
        assert len(bench.series()) <= 4


def test_a_flood_of_names_takes_no_more_memory_and_no_large_tenants_place() -> None:
    bench = Bench()
    bench.counter.add({"a": 1000, "b": 1000})
    for start in range(0, 4 * KNOWN, 1000):
        bench.counter.add({f"tenant-{start + i}": 1 for i in range(1000)})
    assert len(bench.counter._labels._weights) <= KNOWN
    assert bench.series() == {"a": 1000, "b": 1000, "other": 4 * KNOWN}
