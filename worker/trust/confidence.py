"""Evidence on a share that may be looked at any time, from audits drawn with unequal probabilities.

Let image i be bad (y = 1) or good (y = 0) and be drawn with the probability p. For a bet b, multiply 1 - b (y - m) / p
over the drawn images. The mean of each factor, over the draw, is at most exp(-b (y - m)). So at every time at which at
least the share m of all passed images was bad, the product is at most a supermartingale that began at 1, and by Ville's
inequality it ever exceeds 1/a at such a time with a probability of at most a. Nothing is assumed about the images:
their quality may change from day to day, and only the draw is random.

Sources: I. Waudby-Smith, A. Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86 (2024), the
product as a test; S. Shekhar, Z. Xu, Z. Lipton, P. Liang, A. Ramdas, "Risk-limiting financial audits via weighted
sampling without replacement", UAI 2023, weighted audits; S. Howard et al., "Time-uniform, nonparametric, nonasymptotic
confidence sequences", Annals of Statistics 49 (2021), mixtures. A mixture over fixed bets depends on the counts alone,
so neither the order of the audits nor the parts in which they were read matter. With equal probabilities each bet is a
likelihood ratio of two binomial distributions.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worker.trust.audits import Audits

_BOLD: Final = (np.arange(40) + 0.5) / 40
_TIMID: Final = np.geomspace(0.002, 0.98, 40)
"""Both are bets in parts of the smallest probability that was known at the start."""
_ANY: Final = np.geomspace(1e-7, 0.95, 80)
"""Bets for when the probabilities become smaller than that."""
_STAKES_BELOW: Final = (0.75, 0.15, 0.1)
_STAKES_ABOVE: Final = (0.15, 0.75, 0.1)
"""The parts of the stake on each kind of bet. With equal probabilities the best bet that fewer images are bad is
1 - (true share) / (share), and that more are: the difference of both shares."""
_STEPS: Final = 60


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends of a share, 0..1."""

    low: float
    high: float


def log_evidence_below(share: float, audits: Audits, smallest: float) -> float:
    """The logarithm of the evidence that fewer than `share` of the passed images are bad.

    If at least that many are, it ever exceeds log(1/a) with a probability of at most a. `smallest` is a guess, made
    before the first audit, at the smallest probability of being drawn: it affects the power, not the validity. Raises
    ValueError for a share outside of 0..1 or a guess that is no probability.
    """
    _check(share, smallest)
    if share >= 1:
        return 0.0 if audits.good.sum() == 0 else math.inf
    return _mixed(audits, smallest, _STAKES_BELOW, if_good=share / (1 - share), if_bad=-1.0)


def log_evidence_above(share: float, audits: Audits, smallest: float) -> float:
    """The logarithm of the evidence that more than `share` of the passed images are bad; see `log_evidence_below`."""
    _check(share, smallest)
    if share <= 0:
        return 0.0 if audits.bad.sum() == 0 else math.inf
    return _mixed(audits, smallest, _STAKES_ABOVE, if_good=-1.0, if_bad=(1 - share) / share)


def confidence_interval(audits: Audits, smallest: float, confidence: float = 0.95) -> Interval:
    """The shares that the audits do not contradict; at all times together it covers the share of bad images among all
    that passed so far with a probability of at least `confidence`. 0..1 without audits.

    Raises ValueError for a confidence outside of 0..1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")
    limit = math.log(2 / (1 - confidence))
    if log_evidence_below(1 - 1e-12, audits, smallest) < limit:
        high = 1.0
    else:
        high = _crossing(0.0, 1.0, lambda share: log_evidence_below(share, audits, smallest) >= limit)
    if log_evidence_above(1e-12, audits, smallest) < limit:
        return Interval(0.0, high)
    low = _crossing(1.0, 0.0, lambda share: log_evidence_above(share, audits, smallest) >= limit)
    return Interval(low, max(low, high))


def _crossing(inside: float, outside: float, is_refuted: Callable[[float], bool]) -> float:
    """The share nearest to `inside` that is refuted, up to rounding: evidence rises towards `outside`."""
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if is_refuted(middle):
            outside = middle
        else:
            inside = middle
    return outside


def _mixed(audits: Audits, smallest: float, on: tuple[float, float, float], *, if_good: float, if_bad: float) -> float:
    """The logarithm of the mean, over bets, of the product of 1 + bet / probability * (what an image pays)."""
    if audits.audited == 0:
        return 0.0
    bets, stakes = _bets(smallest, float(audits.probabilities[0]), on)
    if not bets.size:
        return -math.inf
    odds = bets[:, None] / audits.probabilities[None, :]
    capital = np.log1p(odds * if_good) @ audits.good + np.log1p(odds * if_bad) @ audits.bad
    top = float(capital.max())
    return top + math.log(float(np.exp(capital - top) @ stakes))


def _bets(
    smallest: float, least_drawn: float, on: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bets with the part of the stake on each. Those that an image could ruin are given up, and their stake is lost."""
    kinds = (_BOLD * smallest, _TIMID * smallest, _ANY)
    bets = np.concatenate(kinds)
    stakes = np.concatenate([np.full(len(kind), part / len(kind)) for kind, part in zip(kinds, on, strict=True)])
    safe = bets < least_drawn
    return bets[safe], stakes[safe]


def _check(share: float, smallest: float) -> None:
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}")
    if not 0 < smallest <= 1:
        raise ValueError(f"{smallest} as the smallest probability of being drawn")
