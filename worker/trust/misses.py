"""How many of the images that passed are bad, by the model and the policy that let them pass."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from schemas import Verdict
from worker.trust.confidence import Interval, confidence_interval


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
    """`missed` of the `audited` images of a cell are bad.

    `interval` covers the share of bad images among all that passed, at all times with the stated confidence.
    `first_at` and `last_at`: when the first and the last of the `passed` images was judged.
    """

    cell: MissCell
    passed: int
    audited: int
    missed: int
    interval: Interval
    first_at: datetime
    last_at: datetime

    @property
    def share(self) -> float | None:
        """The observed share; None without audits."""
        return self.missed / self.audited if self.audited else None


@dataclass(frozen=True, slots=True)
class MissRates:
    """One rate a cell, by tenant and then the newest first. `without_verdict`: audits whose verdict was not among those
    given, as when the topic keeps it no longer; they count nowhere."""

    rates: tuple[MissRate, ...]
    without_verdict: int

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
    audited: int = 0
    missed: int = 0


def miss_rates(
    verdicts: Iterable[Verdict], audits: Mapping[str, bool], *, by_generator: bool = False, confidence: float = 0.95
) -> MissRates:
    """Counts verdicts that let an image pass, and the audits on them.

    `audits`: whether people found the image bad, by verdict id. Images must be drawn for the audit with the same
    probability within a cell. The result does not depend on the order of the verdicts, and a verdict that is read twice
    counts its audit once. Raises ValueError for a confidence outside of 0..1.
    """
    counts: dict[MissCell, _Counts] = {}
    waiting = dict(audits)
    for verdict in verdicts:
        if verdict.route.action != "pass":
            continue
        generator = (verdict.generator or "") if by_generator else None
        cell = MissCell(verdict.tenant, verdict.model, verdict.policy, generator)
        count = counts.get(cell)
        if count is None:
            count = counts[cell] = _Counts(verdict.judged_at, verdict.judged_at)
        count.first_at = min(count.first_at, verdict.judged_at)
        count.last_at = max(count.last_at, verdict.judged_at)
        count.passed += 1
        bad = waiting.pop(verdict.verdict_id, None)
        if bad is not None:
            count.audited += 1
            count.missed += bad
    rates = [
        MissRate(
            cell,
            count.passed,
            count.audited,
            count.missed,
            confidence_interval(count.missed, count.audited, confidence),
            count.first_at,
            count.last_at,
        )
        for cell, count in counts.items()
    ]
    rates.sort(key=lambda rate: (rate.cell.tenant, -rate.last_at.timestamp(), rate.cell))
    return MissRates(tuple(rates), len(waiting))
