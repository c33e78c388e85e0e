"""How many audits each stratum of quality gets."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas import AuditStratum
from worker.trust.drawing import uniform

ENOUGH_DRAWN: Final = 50
"""With fewer drawn images nothing is known of where the bad ones are, and all are drawn evenly."""
UNIFORM_PART: Final = 0.5
"""The part of the budget that is drawn evenly. Without it a plan could hardly find what it does not expect, and a bound
could not be certified: that depends on the smallest probability."""
_CUTS: Final = (0.02, 0.08, 0.2, 0.4, 0.7)
"""Parts of the passed images below the limits of the strata. They are narrow at the bottom, where bad images are."""
_PRIOR_AUDITS: Final = 10.0
"""So many audits with the overall share of bad images are added to each stratum."""
_PRIOR_SHARE: Final = 0.01
_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class DrawnImage:
    """A passed image that was drawn for the audit; `bad` is None until it is settled."""

    quality: float
    probability: float
    bad: bool | None


def allocate(
    drawn: Sequence[DrawnImage], days: float, *, budget_per_day: int, uniform_share: float
) -> tuple[AuditStratum, ...]:
    """Strata whose expected audits per day are `budget_per_day`, if as many images pass as in the last `days`, in which
    `drawn` were drawn.

    Every stratum gets at least `uniform_share`, and half of the budget is spent evenly. The rest goes to the strata by
    the standard deviation of being bad (Neyman, 1934): mostly to low qualities that have turned out bad. If the uniform
    share alone costs more than the budget, it is drawn nonetheless. The result does not depend on the order of `drawn`.
    """
    if len(drawn) < ENOUGH_DRAWN or days <= 0:
        return uniform(uniform_share)
    quality = np.array([image.quality for image in drawn])
    weight = 1 / np.array([image.probability for image in drawn])
    limits = _limits(quality, weight)
    place = np.searchsorted(limits, quality, side="right")
    count = len(limits) + 1
    passed = np.bincount(place, weight, count) / days
    spread = _spread(drawn, place, count)
    floor = min(1.0, max(uniform_share, UNIFORM_PART * budget_per_day / float(passed.sum())))
    probabilities = _fill(passed, spread, floor, budget_per_day)
    return tuple(
        AuditStratum(name="rest", probability=probability)
        if index == len(limits)
        else AuditStratum(name=f"below-{limits[index]:g}", below=limits[index], probability=probability)
        for index, probability in enumerate(probabilities)
    )


def _limits(quality: NDArray[np.float64], weight: NDArray[np.float64]) -> list[float]:
    order = np.lexsort((weight, quality))
    below = np.cumsum(weight[order]) / weight.sum()
    at = [quality[order][min(int(np.searchsorted(below, cut)), len(order) - 1)] for cut in _CUTS]
    return sorted({round(float(limit), 2) for limit in at})


def _spread(drawn: Sequence[DrawnImage], place: NDArray[np.int64], count: int) -> NDArray[np.float64]:
    """The standard deviation of being bad, of an image of each stratum; drawn towards the overall one where little is
    known."""
    settled = np.bincount(place, [image.bad is not None for image in drawn], count)
    bad = np.bincount(place, [image.bad is True for image in drawn], count)
    overall = (float(bad.sum()) + _PRIOR_AUDITS * _PRIOR_SHARE) / (float(settled.sum()) + _PRIOR_AUDITS)
    share = (bad + _PRIOR_AUDITS * overall) / (settled + _PRIOR_AUDITS)
    found: NDArray[np.float64] = np.sqrt(share * (1 - share))
    return found


def _fill(passed: NDArray[np.float64], spread: NDArray[np.float64], floor: float, budget: float) -> list[float]:
    """Probabilities of at least `floor` that spend the budget: the same multiple of the spread everywhere above it."""

    def at(scale: float) -> NDArray[np.float64]:
        return np.minimum(1.0, floor + scale * spread)

    low, high = 0.0, 1 / float(spread.min())
    if float(passed @ at(0.0)) >= budget:
        high = 0.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if float(passed @ at(middle)) < budget else (low, middle)
    # three digits: the numbers of audits by probability stay few, and people can read them
    return [min(1.0, float(f"{value:.3g}")) if math.isfinite(value) else 1.0 for value in at(low)]
