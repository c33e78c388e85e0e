"""Whether the images of a tenant and generator have changed: a recent window of time beside the one before it."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from schemas import Verdict

Kind = Literal["quality", "failures", "new"]

FALSE_ALARMS: Final = 0.001
"""The false discovery rate. A stream in which nothing changed raises an alarm in at most this share of the looks."""
ENOUGH: Final = 50
"""Fewer images in a window are not compared."""
LEAST_DISTANCE: Final = 0.05
"""Smaller changes of quality raise no alarm, however certain: the greatest difference of the cumulative shares."""
LEAST_FAILURES: Final = 0.02
MOST_CELLS: Final = 2000
"""Generators beyond so many cells are counted together: their names come from outside."""
OTHER: Final = "other"
_BINS: Final = 400
_EXAMPLE_BINS: Final = 40
_EXAMPLES: Final = 3


@dataclass(frozen=True, slots=True, order=True)
class DriftCell:
    """What is compared: verdicts of one tenant and model on images of one generator (empty where it is unknown)."""

    tenant: str
    generator: str
    model: str


@dataclass(frozen=True, slots=True)
class Side:
    """What a window holds of a cell. `mean_quality` is of the scored images, None without any; `failures` the share of
    the images that could not be judged, by reason in `reasons`."""

    images: int
    mean_quality: float | None
    failures: float
    reasons: dict[str, int]


@dataclass(frozen=True, slots=True)
class Alarm:
    """Something changed.

    `size` is the greatest difference of the cumulative shares of quality, or the difference of the shares of failures;
    for a new generator the number of its images. `chance`: how likely a change of this size is if nothing changed.
    `examples`: events of images of the quality that has become more frequent.
    """

    kind: Kind
    size: float
    chance: float
    examples: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DriftComparison:
    """A cell before and now. `compared` is False where one of the windows has too few images; then only `new` can be an
    alarm: a generator whose images did not come before, though other images of the tenant did."""

    cell: DriftCell
    before: Side
    now: Side
    compared: bool
    alarms: tuple[Alarm, ...]


@dataclass(frozen=True, slots=True)
class DriftWindows:
    """The recent window ends at `end` and begins at `start`; the one before it begins at `before`."""

    before: datetime
    start: datetime
    end: datetime

    @classmethod
    def ending(cls, end: datetime, *, days: float = 7, against_days: float = 28) -> "DriftWindows":
        start = end - timedelta(days=days)
        return cls(start - timedelta(days=against_days), start, end)


@dataclass(slots=True)
class _Window:
    quality: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_BINS, np.int64))
    millionths: int = 0
    """The sum of the qualities. Whole numbers have the same sum in any order."""
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def scored(self) -> int:
        return int(self.quality.sum())

    @property
    def images(self) -> int:
        return self.scored + self.reasons.total()

    def side(self) -> Side:
        mean = self.millionths / self.scored / 1e6 if self.scored else None
        failed = self.reasons.total() / self.images if self.images else 0.0
        return Side(self.images, mean, failed, dict(sorted(self.reasons.items())))


@dataclass(slots=True)
class _Counts:
    before: _Window = field(default_factory=_Window)
    now: _Window = field(default_factory=_Window)
    examples: dict[int, tuple[datetime, str]] = field(default_factory=dict)
    """The newest event of each range of quality."""


class DriftCounts:
    """Counts verdicts by cell and window, up to MOST_CELLS cells. Up to there the order of verdicts does not matter."""

    def __init__(self, windows: DriftWindows) -> None:
        self.windows = windows
        self._cells: dict[DriftCell, _Counts] = {}

    def add(self, verdict: Verdict) -> None:
        """Counts a verdict, if it is in one of the windows."""
        cell = DriftCell(verdict.tenant, verdict.generator or "", verdict.model)
        if verdict.scores is not None:
            self.add_scored(cell, verdict.judged_at, verdict.event_id, verdict.scores.quality)
        elif (window := self._window(cell, verdict.judged_at)) is not None:
            window.reasons[verdict.failure.reason.value if verdict.failure is not None else "unknown"] += 1

    def add_scored(self, cell: DriftCell, at: datetime, event_id: str, quality: float) -> None:
        """Counts an image that was judged then, if that is in one of the windows."""
        window = self._window(cell, at)
        if window is None:
            return
        window.quality[_bin(quality, _BINS)] += 1
        window.millionths += round(quality * 1e6)
        if at >= self.windows.start:
            examples, place = self._of(cell).examples, _bin(quality, _EXAMPLE_BINS)
            examples[place] = max(examples.get(place, (at, "")), (at, event_id))

    def compare(self) -> tuple[DriftComparison, ...]:
        """All cells of the recent window, those with alarms first, then by volume.

        Qualities are compared by the test of Kolmogorov and Smirnov, failures by that of the likelihood ratio. Over all
        these tests together the false discovery rate is held (Benjamini and Hochberg, 1995).
        """
        tests = {cell: list(_tests(counts)) for cell, counts in self._cells.items() if _has_enough(counts)}
        limit = _limit([alarm.chance for alarms in tests.values() for alarm in alarms])
        known = {cell.tenant for cell, counts in self._cells.items() if counts.before.images >= ENOUGH}
        found = []
        for cell, counts in self._cells.items():
            if not counts.now.images:
                continue
            alarms = [alarm for alarm in tests.get(cell, ()) if alarm.chance <= limit and _is_large(alarm)]
            if self._is_new(cell, counts) and cell.tenant in known:
                newest = sorted(counts.examples.values(), reverse=True)[:_EXAMPLES]
                alarms.append(Alarm("new", counts.now.images, 0.0, tuple(event for _, event in newest)))
            found.append(DriftComparison(cell, counts.before.side(), counts.now.side(), cell in tests, tuple(alarms)))
        found.sort(key=lambda each: (not each.alarms, -each.now.images, each.cell))
        return tuple(found)

    def _window(self, cell: DriftCell, at: datetime) -> _Window | None:
        if not self.windows.before <= at < self.windows.end:
            return None
        counts = self._of(cell)
        return counts.now if at >= self.windows.start else counts.before

    def _of(self, cell: DriftCell) -> _Counts:
        if cell not in self._cells and len(self._cells) >= MOST_CELLS:
            cell = DriftCell(cell.tenant if self._knows(cell.tenant) else OTHER, OTHER, cell.model)
        return self._cells.setdefault(cell, _Counts())

    def _knows(self, tenant: str) -> bool:
        return any(cell.tenant == tenant for cell in self._cells)

    def _is_new(self, cell: DriftCell, counts: _Counts) -> bool:
        """Under whatever model: a new model does not make a generator new."""
        before = sum(
            other.before.images
            for each, other in self._cells.items()
            if (each.tenant, each.generator) == (cell.tenant, cell.generator)
        )
        return bool(cell.generator) and cell.generator != OTHER and before == 0 and counts.now.images >= ENOUGH


def alarmed(
    comparisons: Iterable[DriftComparison], tenant: str, model: str, generator: str | None = None
) -> tuple[DriftComparison, ...]:
    """Those with alarms of a tenant under a model; with a generator, only of its images."""
    return tuple(
        each
        for each in comparisons
        if each.alarms
        and (each.cell.tenant, each.cell.model) == (tenant, model)
        and generator in (None, each.cell.generator)
    )


def _has_enough(counts: _Counts) -> bool:
    return counts.before.images >= ENOUGH and counts.now.images >= ENOUGH


def _tests(counts: _Counts) -> Iterable[Alarm]:
    before, now = counts.before, counts.now
    if before.scored >= ENOUGH and now.scored >= ENOUGH:
        distance = np.cumsum(now.quality) / now.scored - np.cumsum(before.quality) / before.scored
        size = float(np.abs(distance).max())
        yield Alarm("quality", size, _kolmogorov(size, before.scored, now.scored), _examples(counts))
    failed = (before.reasons.total(), now.reasons.total())
    size = failed[1] / now.images - failed[0] / before.images
    yield Alarm("failures", size, _likelihood_ratio(failed, (before.images, now.images)))


def _is_large(alarm: Alarm) -> bool:
    return abs(alarm.size) >= (LEAST_DISTANCE if alarm.kind == "quality" else LEAST_FAILURES)


def _examples(counts: _Counts) -> tuple[str, ...]:
    """The newest events of the ranges of quality whose share has grown most."""
    shape = (_EXAMPLE_BINS, _BINS // _EXAMPLE_BINS)
    grown = counts.now.quality.reshape(shape).sum(axis=1) / max(1, counts.now.scored)
    grown = grown - counts.before.quality.reshape(shape).sum(axis=1) / max(1, counts.before.scored)
    places = sorted((place for place in counts.examples if grown[place] > 0), key=lambda place: (-grown[place], place))
    return tuple(counts.examples[place][1] for place in places[:_EXAMPLES])


def _bin(quality: float, bins: int) -> int:
    return min(bins - 1, max(0, int((quality - 1) / 4 * bins)))


def _kolmogorov(distance: float, first: int, second: int) -> float:
    """The chance of at least this distance between samples of one distribution (Smirnov, 1948), for many images. Equal
    values, as those of one bin, make it smaller yet."""
    scaled = distance * math.sqrt(first * second / (first + second))
    if scaled < 0.2:  # the series does not converge; the chance is 1 to twelve digits
        return 1.0
    terms = ((2 if k % 2 else -2) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, math.fsum(terms)))


def _likelihood_ratio(hits: tuple[int, int], of: tuple[int, int]) -> float:
    """The chance of at least this difference between two shares that are equal (Wilks, 1938)."""

    def log_likelihood(count: int, total: int, share: float) -> float:
        parts = ((count, share), (total - count, 1 - share))
        return math.fsum(number * math.log(part) for number, part in parts if number)

    together = sum(hits) / sum(of)
    apart = sum(log_likelihood(count, total, count / total) for count, total in zip(hits, of, strict=True))
    joint = sum(log_likelihood(count, total, together) for count, total in zip(hits, of, strict=True))
    return math.erfc(math.sqrt(max(0.0, apart - joint)))


def _limit(chances: list[float]) -> float:
    """The greatest chance that counts as a discovery."""
    ordered = sorted(chances)
    passing = [chance for place, chance in enumerate(ordered, start=1) if chance <= FALSE_ALARMS * place / len(ordered)]
    return passing[-1] if passing else -1.0
