"""A histogram that takes many observations at once."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from prometheus_client import Histogram


class BulkHistogram(Histogram):
    """prometheus_client's histogram takes a lock twice for each observation; here each bucket is counted up once.

    It reads that class's own fields, which has no public way to do this: a test holds both to the same samples.
    """

    def observe_all(self, amounts: Sequence[float]) -> None:
        """As `observe` for each amount."""
        if not amounts:
            return
        self._sum.inc(sum(amounts))
        for bucket, count in Counter(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[bucket].inc(count)
