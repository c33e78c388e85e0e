"""How many of the images that passed are bad, by the model and the policy that let them pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from schemas import Verdict
from worker.trust.audits import Audits
from worker.trust.certificate import Certificate, at_least, certify, loosest_threshold
from worker.trust.drawing import AuditDraws
from worker.trust.estimate import Estimate, estimate

DEFAULT_SMALLEST = 0.01
"""The guess at the smallest probability where no image of a cell could be drawn."""


@dataclass(frozen=True, slots=True, order=True)
class MissCell:
    """What is counted together: verdicts of one tenant, model and policy. `generator` is None unless cells are split by
    it, and empty for images whose generator is unknown."""

    tenant: str
    model: str
    policy: str
    generator: str | None = None


@dataclass(frozen=True, slots=True)
class MissRate:
    """What is known of the images of a cell that passed.

    Of `passed` images `not_auditable` cannot be drawn: they came within their event, or their stratum is not audited;
    nothing is said about them. `drawn` were drawn, `audited` of these are settled, and `missed` of these are bad.
    `estimate` is for one look, `certificate` and `loosest_threshold` hold at all times together. `first_at` and
    `last_at`: when the first and the last of the `passed` images was judged.
    """

    cell: MissCell
    passed: int
    not_auditable: int
    drawn: int
    audited: int
    missed: int
    estimate: Estimate
    certificate: Certificate
    loosest_threshold: float | None
    first_at: datetime
    last_at: datetime

    @property
    def reason(self) -> str | None:
        """Why there is no estimate; None where there is one."""
        if self.audited:
            return None
        if self.passed == self.not_auditable:
            return "none of these images can be audited: they came within their events, or the audit is off"
        if self.drawn == 0:
            return "no image has been drawn yet"
        return f"none of the {self.drawn:,} drawn images has been judged yet"


@dataclass(frozen=True, slots=True)
class MissRates:
    """One rate for each cell, by tenant and then the newest first.

    Audits that count nowhere: `without_verdict`, as their verdict was not among those given (the topic keeps it no
    longer), and `not_drawn`, as the plans do not draw them, so that their probability is unknown.
    """

    rates: tuple[MissRate, ...]
    without_verdict: int
    not_drawn: int

    def in_force(self) -> tuple[MissRate, ...]:
        """Of each tenant and generator the rate of the model and policy that judged last."""
        newest: dict[tuple[str, str | None], MissRate] = {}
        for rate in self.rates:
            newest.setdefault((rate.cell.tenant, rate.cell.generator), rate)
        return tuple(newest.values())


@dataclass(slots=True)
class _Counts:
    first_at: datetime
    last_at: datetime
    passed: int = 0
    not_auditable: int = 0
    drawn: set[str] = field(default_factory=set)
    settled: list[tuple[float, float, bool]] = field(default_factory=list)
    """Quality, probability, and whether the image is bad."""


def miss_rates(
    verdicts: Iterable[Verdict],
    audits: Mapping[str, bool],
    draws: AuditDraws,
    *,
    at_most: float,
    by_generator: bool = False,
    confidence: float = 0.95,
) -> MissRates:
    """Counts verdicts that let an image pass, and weights the audits on them.

    `audits`: whether people found the image bad, by verdict id, of all audits that are settled. Of drawn images those
    that are settled must not be worse or better than those that are not. Audits do not depend on the order of the
    verdicts, and a verdict that is read twice counts its audit once. Raises ValueError for a bound or a confidence
    outside of 0..1.
    """
    counts: dict[MissCell, _Counts] = {}
    waiting = dict(audits)
    not_drawn = 0
    for verdict in verdicts:
        if verdict.route.action != "pass":
            continue
        count = _count_of(counts, verdict, by_generator=by_generator)
        count.passed += 1
        chance = draws.chance(verdict)
        draw = draws.draw(verdict) if chance is not None else None
        count.not_auditable += chance is None
        if draw is None:
            not_drawn += waiting.pop(verdict.verdict_id, None) is not None
            continue
        count.drawn.add(verdict.verdict_id)
        bad = waiting.pop(verdict.verdict_id, None)
        if bad is not None:
            quality = verdict.scores.quality if verdict.scores is not None else 0.0
            count.settled.append((quality, draw.probability, bad))
    rates = [_rate(cell, count, draws, at_most, confidence) for cell, count in counts.items()]
    rates.sort(key=lambda rate: (rate.cell.tenant, -rate.last_at.timestamp(), rate.cell))
    return MissRates(tuple(rates), len(waiting), not_drawn)


def _count_of(counts: dict[MissCell, _Counts], verdict: Verdict, *, by_generator: bool) -> _Counts:
    generator = (verdict.generator or "") if by_generator else None
    cell = MissCell(verdict.tenant, verdict.model, verdict.policy, generator)
    count = counts.get(cell)
    if count is None:
        count = counts[cell] = _Counts(verdict.judged_at, verdict.judged_at)
    count.first_at = min(count.first_at, verdict.judged_at)
    count.last_at = max(count.last_at, verdict.judged_at)
    return count


def _rate(cell: MissCell, count: _Counts, draws: AuditDraws, at_most: float, confidence: float) -> MissRate:
    audits = Audits.of((probability, bad) for _, probability, bad in count.settled)
    smallest = draws.smallest(count.first_at) or DEFAULT_SMALLEST
    return MissRate(
        cell,
        count.passed,
        count.not_auditable,
        len(count.drawn),
        audits.audited,
        audits.missed,
        estimate(audits, confidence),
        certify(audits, smallest, at_most=at_most, confidence=confidence),
        loosest_threshold(at_least(count.settled), smallest, at_most=at_most, confidence=confidence),
        count.first_at,
        count.last_at,
    )
