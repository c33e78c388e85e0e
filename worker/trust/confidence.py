"""A confidence interval for a share that stays valid however often people look at it."""

import math
from dataclasses import dataclass
from typing import Final

FEW_HITS: Final = (1.0, 30.0)
"""The parameters of a Beta mixture with a mean of 3 %. It gives narrow intervals for shares of a few per cent, at the
cost of wide ones for shares that nobody expects of an audit."""
_STEPS = 200


@dataclass(frozen=True, slots=True)
class Interval:
    """Both ends of a share, 0..1."""

    low: float
    high: float


def log_evidence(share: float, hits: int, trials: int, mixture: tuple[float, float] = FEW_HITS) -> float:
    """The natural logarithm of the evidence against `share` being the true one, after `hits` of `trials`.

    The evidence is the likelihood of the trials averaged over a Beta(a, b) `mixture` of shares, divided by their
    likelihood under `share`. If `share` is true it is a martingale with mean 1, so by Ville's inequality it ever
    exceeds 1/p with a probability of at most p: looking daily costs nothing (Robbins, "Statistical methods related to
    the law of the iterated logarithm", 1970; Howard et al., "Time-uniform, nonparametric, nonasymptotic confidence
    sequences", Annals of Statistics 2021). It depends on the counts alone, so the order of the trials does not matter.

    The mixture must be chosen before the trials are seen. Raises ValueError for counts or a share that cannot be.
    """
    if not 0 <= hits <= trials:
        raise ValueError(f"{hits} of {trials}")
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}")
    misses = trials - hits
    if (share == 0 and hits) or (share == 1 and misses):
        return math.inf
    a, b = mixture
    averaged = _log_beta(a + hits, b + misses) - _log_beta(a, b)
    likelihood = (hits * math.log(share) if hits else 0.0) + (misses * math.log1p(-share) if misses else 0.0)
    return averaged - likelihood


def confidence_interval(hits: int, trials: int, confidence: float = 0.95) -> Interval:
    """The shares that `hits` of `trials` do not contradict; it covers the true share at all times with a probability of
    at least `confidence`. 0..1 without trials.

    Raises ValueError for counts that cannot be, or a confidence outside of 0..1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")
    limit = -math.log(1 - confidence)
    if trials == 0:
        return Interval(0.0, 1.0)
    # The evidence is convex in the share and lowest at the observed one, so each side has one crossing.
    observed = hits / trials
    return Interval(
        0.0 if hits == 0 else _crossing(observed, 0.0, hits, trials, limit),
        1.0 if hits == trials else _crossing(observed, 1.0, hits, trials, limit),
    )


def _crossing(inside: float, outside: float, hits: int, trials: int, limit: float) -> float:
    """Where the evidence passes `limit` between a share inside of the interval and one outside, on the outer side."""
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if middle in (inside, outside):
            break
        if log_evidence(middle, hits, trials) < limit:
            inside = middle
        else:
            outside = middle
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
