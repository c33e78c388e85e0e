"""Whether at most a stated share of the passed images is bad, answered at any time."""

import math
from dataclasses import dataclass
from typing import Final, Literal

from worker.trust.confidence import log_evidence

State = Literal["certified", "undecided", "violated"]

_EXPECTED: Final = (0.25, 3.0)
"""What the test expects, in parts of the bound: a gate well below it, or one well above. A gate near the bound takes
many audits whatever the test expects."""
MOST_AUDITS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Certificate:
    """What the audits say of the statement "at most `at_most` of the passed images are bad".

    `certified`: the statement holds, or an event of probability 1 - confidence happened. `violated`: it does not hold,
    in the same sense. `more_audits`: how many further audits without a single bad image would certify it; 0 when it is
    certified, None when it is violated or that many audits are out of reach.
    """

    at_most: float
    confidence: float
    state: State
    more_audits: int | None


def certify(missed: int, audited: int, *, at_most: float, confidence: float = 0.95) -> Certificate:
    """Tests the statement with a sequential test that may be looked at after every audit.

    `missed` of `audited` images that passed were found to be bad. Over all looks, the probability that either answer
    is ever wrong is at most 1 - confidence: both follow from one confidence sequence. Raises ValueError for a bound or
    a confidence outside of 0..1, or counts that cannot be.
    """
    if not 0 < at_most < 1 or not 0 < confidence < 1:
        raise ValueError(f"at most {at_most} with a confidence of {confidence}")
    limit = -math.log(1 - confidence)
    evidence = _evidence(missed, audited, at_most)
    if evidence < limit:
        return Certificate(at_most, confidence, "undecided", _more(missed, audited, at_most, limit))
    if missed < at_most * audited:
        return Certificate(at_most, confidence, "certified", 0)
    return Certificate(at_most, confidence, "violated", None)


def _evidence(missed: int, audited: int, at_most: float) -> float:
    """The mean of two kinds of evidence against the bound, as a logarithm; a mean of martingales is one, too."""
    kinds = [log_evidence(at_most, missed, audited, (1.0, 1.0 / (part * at_most))) for part in _EXPECTED]
    largest = max(kinds)
    return largest + math.log(sum(math.exp(kind - largest) for kind in kinds) / len(kinds))


def _more(missed: int, audited: int, at_most: float, limit: float) -> int | None:
    """Audits that would certify the bound if none of them found a bad image."""

    def certifies(audits: int) -> bool:
        return missed < at_most * audits and _evidence(missed, audits, at_most) >= limit

    enough = max(1, audited)
    while not certifies(enough):
        enough *= 2
        if enough > MOST_AUDITS:
            return None
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if certifies(middle) else (middle, enough)
    return max(1, enough - audited)
