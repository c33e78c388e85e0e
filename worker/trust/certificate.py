"""Whether at most a stated share of the passed images is bad, answered at any time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from worker.trust.audits import Audits
from worker.trust.confidence import log_evidence_above, log_evidence_below

State = Literal["certified", "undecided", "violated"]

MOST_AUDITS: Final = 10_000_000
THRESHOLDS: Final = tuple(1 + step / 4 for step in range(1, 16))
"""The qualities from which on a bound is tried. They are fixed beforehand, since each costs certainty."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the audits say of the statement "at most `at_most` of the images that passed so far are bad".

    `certified`: the statement holds, or an event of probability 1 - confidence happened. `violated`: it does not hold,
    in the same sense. `more_audits`: how many further audits without a single bad image would certify it, drawn with
    the probabilities of those so far; 0 when it is certified, None when it is violated or that many are out of reach.
    """

    at_most: float
    confidence: float
    state: State
    more_audits: int | None


def certify(audits: Audits, smallest: float, *, at_most: float, confidence: float = 0.95) -> Certificate:
    """Tests the statement with a sequential test that may be looked at after every audit.

    The probability that it ever says `certified` while the statement is false is at most 1 - confidence, and so is that
    of an ever wrong `violated`: see `worker.trust.confidence`, also for `smallest`. Raises ValueError for a bound or a
    confidence outside of 0..1.
    """
    if not 0 < at_most < 1 or not 0 < confidence < 1:
        raise ValueError(f"at most {at_most} with a confidence of {confidence}")
    limit = -math.log(1 - confidence)
    if log_evidence_below(at_most, audits, smallest) >= limit:
        return Certificate(at_most, confidence, "certified", 0)
    if log_evidence_above(at_most, audits, smallest) >= limit:
        return Certificate(at_most, confidence, "violated", None)
    return Certificate(at_most, confidence, "undecided", _more(audits, smallest, at_most, limit))


def loosest_threshold(
    by_quality: Mapping[float, Audits], smallest: float, *, at_most: float, confidence: float = 0.95
) -> float | None:
    """The lowest of THRESHOLDS for which the bound is certified, counting only images of at least this quality; None
    where none is.

    `by_quality` has the audits of the images of at least each threshold. As the lowest of many is chosen, each is
    tested with its part of the error (Bonferroni). Raises ValueError as `certify`.
    """
    each = 1 - (1 - confidence) / len(THRESHOLDS)
    for threshold in THRESHOLDS:
        audits = by_quality.get(threshold)
        if audits is not None and certify(audits, smallest, at_most=at_most, confidence=each).state == "certified":
            return threshold
    return None


def at_least(audits: Sequence[tuple[float, float, bool]]) -> dict[float, Audits]:
    """The audits of the images of at least each of THRESHOLDS; thresholds that no image reaches are left out.

    `audits`: of each image its quality, its probability of being drawn, and whether it is bad.
    """
    found: dict[float, Audits] = {}
    for threshold in THRESHOLDS:
        above = [(probability, bad) for quality, probability, bad in audits if quality >= threshold]
        if above:
            found[threshold] = Audits.of(above)
    return found


def _more(audits: Audits, smallest: float, at_most: float, limit: float) -> int | None:
    """Clean audits that would certify the bound, drawn with the probabilities of those so far, in the same parts."""
    if audits.audited == 0:
        audits = Audits(np.array([smallest]), np.zeros(1), np.zeros(1))
        parts = np.ones(1)
    else:
        parts = (audits.good + audits.bad) / audits.audited

    def certifies(more: int) -> bool:
        after = Audits(audits.probabilities, audits.good + more * parts, audits.bad)
        return log_evidence_below(at_most, after, smallest) >= limit

    few, enough = 0, 64
    while not certifies(enough):
        few, enough = enough, enough * 2
        if enough > MOST_AUDITS:
            return None
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if certifies(middle) else (middle, enough)
    return enough
