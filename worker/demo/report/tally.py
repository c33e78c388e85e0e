"""Counts a run in bounded memory."""

import heapq
from array import array
from collections import Counter
from collections.abc import Sequence
from itertools import count

from schemas import FailureReason
from worker.demo.report.entry import ReportEntry

BIN_WIDTH = 0.2
LOWEST, HIGHEST = 1.0, 5.0
BINS = round((HIGHEST - LOWEST) / BIN_WIDTH)


class Tally:
    """Counts every entry and keeps the `keep` worst scored ones and the first `keep` failures.

    Beside those it holds four bytes an image, so a folder of any size can be reported on.
    """

    def __init__(self, keep: int) -> None:
        self._keep = keep
        self._order = count()
        self._worst: list[tuple[float, int, ReportEntry]] = []
        self._qualities = array("f")
        self.failures: list[ReportEntry] = []
        self.failed = 0
        self.cached = 0
        self.routes: Counter[tuple[str, str | None]] = Counter()
        self.reasons: Counter[FailureReason] = Counter()
        self.bins: list[Counter[str]] = [Counter() for _ in range(BINS)]

    def add(self, entry: ReportEntry) -> None:
        self.routes[entry.route.action, entry.route.queue] += 1
        if entry.failure is not None:
            self.failed += 1
            self.reasons[entry.failure.reason] += 1
            if len(self.failures) < self._keep:
                self.failures.append(entry)
        elif (quality := entry.quality) is not None:
            self.cached += entry.cached
            self._qualities.append(quality)
            self.bins[min(int((quality - LOWEST) / BIN_WIDTH), BINS - 1)][entry.route.action] += 1
            # A heap gives up its smallest first, and the best image is the one to give up; of equals, the later one.
            item = (-quality, -next(self._order), entry)
            if len(self._worst) < self._keep:
                heapq.heappush(self._worst, item)
            else:
                heapq.heappushpop(self._worst, item)

    @property
    def scored(self) -> int:
        return len(self._qualities)

    @property
    def total(self) -> int:
        return self.scored + self.failed

    @property
    def worst(self) -> Sequence[ReportEntry]:
        """The scored entries that were kept, worst first; equals in the order they came."""
        return [entry for _, _, entry in sorted(self._worst, key=lambda item: (-item[0], -item[1]))]

    def quantile(self, share: float) -> float | None:
        """The quality that `share` of the scored images do not exceed (nearest rank); None when nothing was scored."""
        if not self._qualities:
            return None
        ordered = sorted(self._qualities)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]

    def actions(self) -> Counter[str]:
        """How many images were passed, sent to review, rejected."""
        actions: Counter[str] = Counter()
        for (action, _), number in self.routes.items():
            actions[action] += number
        return actions
