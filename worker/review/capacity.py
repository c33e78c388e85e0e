"""Which thresholds fill the reviewers' time with the worst images. Pure: verdicts in, a proposal out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

SHARES: Final = tuple(share / 100 for share in (*range(1, 10), *range(10, 101, 5)))
"""Shares of all images for which cost and yield are computed."""
MIN_BAD: Final = 20
"""Fewer images known to be bad say too little of the recall."""


@dataclass(frozen=True, slots=True)
class Capacity:
    """What people can look at: `reviewers`, each for `hours` a day, one item in `seconds_per_item`; `busy` of that time
    is spent on items."""

    reviewers: int
    hours: float
    seconds_per_item: float
    busy: float = 0.85

    @property
    def items_a_day(self) -> float:
        return self.reviewers * self.hours * 3600 * self.busy / self.seconds_per_item


@dataclass(frozen=True, slots=True)
class Scored:
    """A past verdict: its quality, and whether people found the image bad, where they said."""

    quality: float
    bad: bool | None = None


@dataclass(frozen=True, slots=True)
class Trade:
    """What reviewing everything below `threshold` costs and finds.

    `recall` is the share of the bad images that would be seen, `precision` that of the seen ones that are bad; both
    from the images whose worth is known, and None where too few are.
    """

    threshold: float
    share: float
    items_a_day: float
    recall: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Proposal:
    """The threshold that fills the budget, and the trade around it by rising volume.

    `known` images have a human word; `biased` tells that all of them were below some quality, as when only reviewed
    images were judged: then what was missed above is unknown, and recall is of what could be known.
    """

    budget_a_day: float
    images_a_day: float
    chosen: Trade
    trades: tuple[Trade, ...]
    known: int
    bad: int
    biased: bool


class CapacityError(ValueError):
    """Nothing can be proposed; the message says why."""


def propose(verdicts: Sequence[Scored], capacity: Capacity, images_a_day: float) -> Proposal:
    """The highest threshold at which reviewers keep up: images of a quality below it go to review, the worst first.

    The verdicts stand for the stream, `images_a_day` of which come. Raises CapacityError.
    """
    if not verdicts:
        raise CapacityError("there are no verdicts with scores to go by")
    if images_a_day <= 0:
        raise CapacityError("images a day must be more than 0")
    qualities = np.sort(np.array([verdict.quality for verdict in verdicts]))
    budget = min(1.0, capacity.items_a_day / images_a_day)
    chosen = _trade(_threshold(qualities, budget), qualities, verdicts, images_a_day)
    thresholds = sorted({_threshold(qualities, share) for share in SHARES} | {chosen.threshold})
    known = [verdict for verdict in verdicts if verdict.bad is not None]
    highest_known = max((verdict.quality for verdict in known), default=0.0)
    return Proposal(
        budget_a_day=capacity.items_a_day,
        images_a_day=images_a_day,
        chosen=chosen,
        trades=tuple(_trade(threshold, qualities, verdicts, images_a_day) for threshold in thresholds),
        known=len(known),
        bad=sum(verdict.bad is True for verdict in known),
        biased=bool(known) and highest_known < float(np.quantile(qualities, 0.9)),
    )


def _threshold(qualities: NDArray[np.float64], share: float) -> float:
    """The highest threshold, to three digits, below which at most `share` of the images lie."""
    most = int(share * len(qualities) + 1e-9)
    if most >= len(qualities):
        return 5.001  # above every quality: everything is reviewed
    return float(np.floor(qualities[most] * 1000) / 1000)


def _trade(threshold: float, qualities: NDArray[np.float64], verdicts: Sequence[Scored], images_a_day: float) -> Trade:
    share = float(np.searchsorted(qualities, threshold, side="left")) / len(qualities)
    known = [verdict for verdict in verdicts if verdict.bad is not None]
    bad = [verdict for verdict in known if verdict.bad]
    seen = [verdict for verdict in known if verdict.quality < threshold]
    found = sum(verdict.bad is True for verdict in seen)
    return Trade(
        threshold=threshold,
        share=share,
        items_a_day=share * images_a_day,
        recall=found / len(bad) if len(bad) >= MIN_BAD else None,
        precision=found / len(seen) if len(bad) >= MIN_BAD and seen else None,
    )
