"""The metrics of a worker, as Prometheus instruments.

Names follow https://prometheus.io/docs/practices/naming/: one prefix, base units at the end, `_total` on counters.
Every label has a closed set of values or one that the operator chose (topics, partitions, the policy's queues). Of what
events carry, only tenants, generators and stores become labels: the largest of them, and `other` for the rest.
"""

import time
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector

from schemas import FailureReason
from worker.telemetry.bulk_histogram import BulkHistogram
from worker.telemetry.top_counter import TopCounter

Outcome = Literal["scored", "cached", "failed", "ignored"]
Stage = Literal["fetch", "decode", "cache", "engine", "commit", "total"]
CacheKind = Literal["alias", "score", "features"]

TOP_TENANTS = 20
TOP_STORES = 20

_NAMESPACE = "sluice"
_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_LONG_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 21600)
_QUALITIES = (1.5, 2, 2.5, 3, 3.5, 4, 4.5)
_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """All instruments of one worker. Safe to use from several threads.

    Series with a closed set of labels exist from the start, so that a rate over them is 0 and not absent.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        top_tenants: int = TOP_TENANTS,
    ) -> None:
        """`top_tenants`: how many tenants have series of their own."""
        self._clock = clock
        self._wall_clock = wall_clock
        self._turned_at = clock()
        self._lagging: frozenset[tuple[str, int]] = frozenset()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=_NAMESPACE, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace=_NAMESPACE, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> BulkHistogram:
            return BulkHistogram(name, text, labels, namespace=_NAMESPACE, registry=registry, buckets=buckets)

        self.records_polled = counter("records_polled", "Records read from the log.")
        self.records_lost = counter(
            "records_lost", "Records that left the log before they were judged, and that nobody will judge."
        )
        self.events = counter("events", "Events finished, by outcome.", "outcome")
        self.routes = counter("routes", "Verdicts, by the route the policy chose.", "action", "queue")
        self.cell_routes = counter(
            "cell_routes", "Verdicts by tenant, generator and route.", "tenant", "generator", "action"
        )
        self.cell_quality = histogram(
            "cell_quality", "Quality of the images of a tenant and generator.", _QUALITIES, "tenant", "generator"
        )
        self.overload_routes = counter(
            "overload_routes",
            "Verdicts while the review queue of their rule was over its capacity, by that queue, the mode of its"
            " overload rule, and where the image went.",
            "queue",
            "mode",
            "route",
        )
        self.review_queue_overloaded = gauge(
            "review_queue_overloaded",
            "1 while more waits in a review queue than the capacity that the policy states, 0 otherwise.",
            "queue",
        )
        self.shadow_routes = counter(
            "shadow_routes",
            "Verdicts that a shadow policy was asked about, by its name, the route that was and the one it wanted.",
            "shadow",
            "route",
            "wanted",
        )
        self.shadow_failures = counter("shadow_failures", "Verdicts that a shadow policy had no answer to.", "shadow")
        self.policy_changes = counter("policy_changes", "Times that another policy, live or shadow, came into force.")
        self.policies_refused = gauge(
            "policies_refused",
            "Policies, live or shadow, whose current text cannot be read or is invalid; the last valid one stays "
            "active.",
        )
        self.dead_letters = counter("dead_letters", "Records sent to the dead letters, by reason.", "reason")
        self.events_deferred = counter(
            "events_deferred", "Events moved to another topic to be judged later, by that topic.", "topic"
        )
        self.tenant_events = TopCounter(
            "tenant_events",
            "Events finished, by tenant: the largest ones, and `other`.",
            "tenant",
            registry,
            top=top_tenants,
            clock=clock,
        )
        self.fetch_failures = TopCounter(
            "fetch_failures",
            "Attempts to fetch an image that failed or were denied, by store: those with most, and `other`.",
            "store",
            registry,
            top=TOP_STORES,
            clock=clock,
        )
        self.retries = counter("retries", "Attempts that failed and were put off, by what failed.", "reason")
        self.decoder_deaths = counter("decoder_deaths", "Decoder processes that died at an image, or were ended.")
        self.commit_failures = counter("commit_failures", "Commits that did not happen and are repeated.")
        self.rebalances = counter("rebalances", "Changes of this member's partitions.")
        self.cache_requests = counter("cache_requests", "Questions to the cache.", "kind", "result")

        self.stage_seconds = histogram("stage_seconds", "Seconds spent in each stage.", _SECONDS, "stage")
        self.verdict_age_seconds = histogram(
            "verdict_age_seconds",
            "Seconds from an event's first record in the log to its verdict, without the commit.",
            _LONG_SECONDS,
        )
        self.capacity = gauge(
            "capacity",
            "How much there can be at once: threads that fetch and decode, batches with the engine, images in a batch.",
            "of",
        )
        self.batch_size = histogram("batch_size", "Images in each batch given to the engine.", _BATCH_SIZES)

        self.records_in_flight = gauge("records_in_flight", "Records read and not yet committed.")
        self.records_not_due = gauge(
            "records_not_due", "Records read from retry topics whose events are not due for another attempt."
        )
        self.bytes_in_flight = gauge("bytes_in_flight", "Bytes of records and images held in memory.")
        self.partitions_paused = gauge(
            "partitions_paused", "Partitions not read at the moment, though they have records that are due."
        )
        self.consumer_lag_records = gauge(
            "consumer_lag_records", "Records between the committed offset and the end.", "topic", "partition"
        )
        self._oldest_ms: int | None = None
        self.oldest_unjudged_seconds = gauge(
            "oldest_unjudged_seconds",
            "Age of the oldest record that was read and has no committed verdict; 0 when none.",
        )
        self.oldest_unjudged_seconds.set_function(self._oldest_age)
        self.breaker_open = gauge("breaker_open", "1 while the engine or an S3 bucket is down; its events wait.")
        self.store_down = gauge("store_down", "1 while an image store does not answer or refuses everything.", "store")
        self._stores_down: frozenset[str] = frozenset()
        self.cache_up = gauge("cache_up", "1 while the cache answers.")
        self.loop_age_seconds = gauge("loop_age_seconds", "Seconds since the intake loop last turned.")
        self.loop_age_seconds.set_function(lambda: self._clock() - self._turned_at)

        Info("build", "The software that runs.", namespace=_NAMESPACE, registry=registry).info({"version": _version()})
        ProcessCollector(registry=registry)

        for outcome in get_args(Outcome):
            self.events.labels(outcome)
        for stage in get_args(Stage):
            self.stage_seconds.labels(stage)
        for reason in FailureReason:
            self.dead_letters.labels(reason.value)
        for kind in get_args(CacheKind):
            for result in ("hit", "miss"):
                self.cache_requests.labels(kind, result)

    def set_capacity(self, *, prepare_threads: int, batches: int, batch_images: int) -> None:
        """How many threads fetch and decode, batches are with the engine, and images in a batch, at most."""
        self.capacity.labels("prepare_threads").set(prepare_threads)
        self.capacity.labels("batches").set(batches)
        self.capacity.labels("batch_images").set(batch_images)

    def set_stores_down(self, stores: Collection[str]) -> None:
        """The image stores that are down now; of many, the first in order of their names."""
        down = frozenset(sorted(stores)[:TOP_STORES])
        for store in self._stores_down - down:
            self.store_down.remove(store)
        for store in down:
            self.store_down.labels(store).set(1)
        self._stores_down = down

    def loop_turned(self) -> None:
        """Records that the intake loop made a turn: `loop_age_seconds` counts from now."""
        self._turned_at = self._clock()

    def set_oldest(self, timestamp_ms: int | None) -> None:
        """The time in the log of the oldest record without a committed verdict; None when there is none."""
        self._oldest_ms = timestamp_ms

    def _oldest_age(self) -> float:
        oldest = self._oldest_ms
        return 0.0 if oldest is None else max(0.0, self._wall_clock() - oldest / 1000)

    def set_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Sets the lag of each (topic, partition); series of partitions that are no longer named end.

        A series that stayed after its partition moved away would raise alarms for ever.
        """
        for topic, partition in self._lagging - lag.keys():
            self.consumer_lag_records.remove(topic, str(partition))
        for (topic, partition), records in lag.items():
            self.consumer_lag_records.labels(topic, str(partition)).set(records)
        self._lagging = frozenset(lag)


def _version() -> str:
    try:
        return version("sluice")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "unknown"
