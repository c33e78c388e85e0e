"""The share of bad images among those that passed in a window of time, for one look at it."""

from dataclasses import dataclass

import numpy as np

from worker.trust.audits import Audits
from worker.trust.confidence import Interval
from worker.trust.gamma import gamma_quantile


@dataclass(frozen=True, slots=True)
class Estimate:
    """`share` is the weighted mean of the audits (None without audits); `interval` covers the true share with the
    stated confidence, for one look. `represented`: how many passed images the audits stand for."""

    share: float | None
    interval: Interval
    represented: float


def estimate(audits: Audits, confidence: float = 0.95) -> Estimate:
    """Estimates the share from images drawn independently with known probabilities.

    The point is Hájek's ratio of two Horvitz-Thompson sums. The interval is M. Fay and E. Feuer's gamma interval
    ("Confidence intervals for directly standardized rates", Statistics in Medicine 16, 1997), with the variance of the
    ratio: it treats the bad images of each probability as Poisson counts, and reckons with one more that has the
    greatest weight, so that it does not get too narrow where no bad image was found. Raises ValueError for a confidence
    outside of 0..1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence of {confidence}")
    share = audits.share
    if share is None:
        return Estimate(None, Interval(0.0, 1.0), 0.0)
    if share > 0.5:  # a Poisson count fits the rarer kind
        mirrored = _interval(Audits(audits.probabilities, audits.bad, audits.good), confidence)
        return Estimate(share, Interval(1 - mirrored.high, 1 - mirrored.low), audits.represented)
    return Estimate(share, _interval(audits, confidence), audits.represented)


def _interval(audits: Audits, confidence: float) -> Interval:
    tail = (1 - confidence) / 2
    weights = 1 / audits.probabilities / audits.represented
    share = float(weights @ audits.bad)
    variance = float(np.square(weights) @ (audits.bad * (1 - share) ** 2 + audits.good * share**2))
    greatest = float(weights.max())
    low = variance / share * gamma_quantile(tail, share**2 / variance) if share and variance else share
    with_one, spread = share + greatest, variance + greatest**2
    high = spread / with_one * gamma_quantile(1 - tail, with_one**2 / spread)
    return Interval(min(low, share), min(1.0, high))
