"""What the desk keeps and deletes, as metrics."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from worker.review.answers import Status


class RetentionMetrics(Collector):
    """`sluice_review_kept_items` by status; `sluice_review_records_deleted_total` by topic;
    `sluice_review_retention_failures_total`; and, at the one desk that writes snapshots,
    `sluice_review_snapshot_age_seconds`."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._kept: Mapping[Status, int] = {}
        self._deleted = Counter[str]()
        self._failures = 0
        self._snapshot_at: datetime | None = None

    def kept(self, items: Mapping[Status, int]) -> None:
        self._kept = items

    def deleted(self, topic: str, records: int) -> None:
        self._deleted[topic] += records

    def failed(self) -> None:
        self._failures += 1

    def snapshot(self, taken_at: datetime | None) -> None:
        """When the newest snapshot was taken; None where this desk writes none."""
        self._snapshot_at = taken_at

    def collect(self) -> Iterator[Metric]:
        kept, taken_at = self._kept, self._snapshot_at
        items = GaugeMetricFamily("sluice_review_kept_items", "Items that the desk keeps.", labels=["status"])
        for status in Status:
            items.add_metric([status.value], kept.get(status, 0))
        yield items
        deleted = CounterMetricFamily(
            "sluice_review_records_deleted", "Records deleted from topics that no kept item needs.", labels=["topic"]
        )
        for topic, count in self._deleted.copy().items():
            deleted.add_metric([topic], count)
        yield deleted
        yield CounterMetricFamily(
            "sluice_review_retention_failures", "Snapshots or deletions that failed.", value=self._failures
        )
        if taken_at is not None:
            yield GaugeMetricFamily(
                "sluice_review_snapshot_age_seconds",
                "Age of the newest snapshot of the desk's items.",
                value=max(0.0, (self._now() - taken_at).total_seconds()),
            )
