"""How often the numbers of the audit are wrong, and how many audits they take.

Four simulations with fixed seeds; there is nothing to time:
- intervals that people look at every day: how often one is ever wrong;
- a bound: how often it is certified or violated, rightly or wrongly, and after how many audits;
- intervals for one look, of images drawn with unequal probabilities: how often they hold the true share;
- audits drawn by risk instead of evenly: how many labels that saves for the same error.

python -m ops.benchmarks.trust_benchmark --out ops/benchmarks
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish
from schemas import AuditStratum
from worker.charts import line_chart
from worker.review.sampling import wilson
from worker.trust.allocation import DrawnImage, allocate
from worker.trust.audits import Audits
from worker.trust.confidence import confidence_interval, log_evidence_above, log_evidence_below
from worker.trust.drawing import uniform
from worker.trust.estimate import estimate

SEED = 19
DAYS = 90
AUDITS_A_DAY = 50
EVENLY = 0.01
"""The probability of an even draw: 5,000 images pass a day."""
SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)
BOUND = 0.02
ERROR = 0.05
MOST_DAYS = 400
WEIGHTED = np.array([0.005, 0.02, 0.15])
"""Probabilities of a draw by risk, and the parts of the passed images and of the bad ones that are drawn so."""
OF_IMAGES = np.array([0.8, 0.15, 0.05])
OF_BAD = np.array([0.2, 0.3, 0.5])
PASSED_A_DAY = 40_000
BUDGET = 400
SEPARATIONS = {"weakly": 1.5, "fairly": 3.0, "well": 6.0}
"""How steeply the chance of being bad falls with the quality."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Looks:
    """Of the streams with this share of bad images, the part in which an interval missed it on some day."""

    share: float
    wilson_ever_wrong: float
    sequence_ever_wrong: float
    sequence_width_after_90_days: float


@dataclass(frozen=True, slots=True)
class Certification:
    """Streams with this share of bad images: how many were certified or found to violate the bound by the last day, and
    after how many audits in the median (None where fewer than half were)."""

    stream: str
    bound: float
    certified: float
    violated: float
    wrong: float
    audits_until_decided: float | None


@dataclass(frozen=True, slots=True)
class OneLook:
    """How often the interval of one window held the true share, and how often that lay below and above."""

    share: float
    audits: int
    held: float
    below: float
    above: float
    width: float


@dataclass(frozen=True, slots=True)
class Saving:
    """Root mean square errors of the weekly share, drawn evenly and by plans; `labels_saved` is the factor of audits
    that an even draw needs for the same error."""

    separation: str
    share: float
    even_error: float
    planned_error: float
    labels_saved: float


def main() -> None:
    args = option_parser(__doc__).parse_args()
    options = Options(short=args.short, out=args.out)
    streams = 20 if options.short else 600
    rng = np.random.default_rng(SEED)
    looks = [_looks(share, streams, rng) for share in SHARES]
    certified = [_steady(share, streams // 4, rng) for share in (0.0, *SHARES)]
    certified += [_shifting(name, days, streams // 2, rng) for name, days in _SHIFTS.items()]
    one_look = [_one_look(share, days, 10 * streams, rng) for share in (0.002, 0.01, 0.05, 0.15) for days in (1, 7, 30)]
    savings = [_saving(name, steepness, streams // 5, rng) for name, steepness in SEPARATIONS.items()]
    report = {
        "measured_on": machine("numpy"),
        "seed": SEED,
        "streams": streams,
        "days": DAYS,
        "audits_a_day": AUDITS_A_DAY,
        "daily_looks": [asdict(row) for row in looks],
        "certification": [asdict(row) for row in certified],
        "one_look": [asdict(row) for row in one_look],
        "savings": [asdict(row) for row in savings],
    }
    picture = line_chart(
        f"Streams in which a 95 % interval was wrong on some day of {DAYS}",
        "bad images among those that passed, %",
        "% of streams",
        {
            "Wilson": [(row.share * 100, row.wilson_ever_wrong * 100) for row in looks],
            "confidence sequence": [(row.share * 100, row.sequence_ever_wrong * 100) for row in looks],
        },
    )
    tables = [_looks_table(looks), _certificate_table(certified), _one_look_table(one_look), _savings_table(savings)]
    publish("trust", options, report, tables, picture)


def _looks(share: float, streams: int, rng: np.random.Generator) -> Looks:
    missed = np.cumsum(rng.binomial(AUDITS_A_DAY, share, (streams, DAYS)), axis=1)
    fixed = _Known(lambda hits, trials: not wilson(hits, trials).low <= share <= wilson(hits, trials).high)
    always = _Known(lambda hits, trials: _evidence(share, _evenly(hits, trials), EVENLY) >= math.log(2 / ERROR))
    last = [confidence_interval(_evenly(int(hits), DAYS * AUDITS_A_DAY), EVENLY) for hits in missed[:50, -1]]
    return Looks(
        share,
        _ever(missed, fixed),
        _ever(missed, always),
        float(np.mean([interval.high - interval.low for interval in last])),
    )


def _evenly(missed: int, audited: int) -> Audits:
    return Audits(np.array([EVENLY]), np.array([float(audited - missed)]), np.array([float(missed)]))


def _evidence(share: float, audits: Audits, smallest: float) -> float:
    return max(log_evidence_below(share, audits, smallest), log_evidence_above(share, audits, smallest))


class _Known:
    """Remembers answers: streams share most of their counts."""

    def __init__(self, is_wrong: Callable[[int, int], bool]) -> None:
        self._is_wrong = is_wrong
        self._known: dict[tuple[int, int], bool] = {}

    def __call__(self, hits: int, trials: int) -> bool:
        key = (hits, trials)
        if key not in self._known:
            self._known[key] = self._is_wrong(hits, trials)
        return self._known[key]


def _ever(missed: NDArray[np.int64], is_wrong: _Known) -> float:
    def ever(stream: Sequence[int]) -> bool:
        return any(is_wrong(int(hits), AUDITS_A_DAY * (day + 1)) for day, hits in enumerate(stream))

    return float(np.mean([ever(stream) for stream in missed]))


def _steady(share: float, streams: int, rng: np.random.Generator) -> Certification:
    """Even draws from a stream that does not change. Here the share of the images that pass later is the same."""
    limit = math.log(1 / ERROR)
    audits: list[int] = []
    states: list[str] = []
    for stream in np.cumsum(rng.binomial(AUDITS_A_DAY, share, (streams, MOST_DAYS)), axis=1):
        for day, hits in enumerate(stream):
            found = _evenly(int(hits), AUDITS_A_DAY * (day + 1))
            is_below = log_evidence_below(BOUND, found, EVENLY) >= limit
            if is_below or log_evidence_above(BOUND, found, EVENLY) >= limit:
                states.append("certified" if is_below else "violated")
                audits.append(AUDITS_A_DAY * (day + 1))
                break
    certified, violated = states.count("certified") / streams, states.count("violated") / streams
    wrong = certified * (share >= BOUND) + violated * (share <= BOUND)
    reached = median(audits) if len(audits) >= streams / 2 else None
    return Certification(f"{share:.1%}, steady", BOUND, certified, violated, wrong, reached)


_BAD_DAYS = np.where(np.arange(DAYS) < 30, 0.012, 0.045)
_SHIFTS: dict[str, Floats] = {
    "1.2 %, 4.5 % from day 30": _BAD_DAYS,
    "4.5 %, 1.2 % from day 30": np.where(np.arange(DAYS) < 30, 0.045, 0.012),
    "3.5 % each seventh day, else 1.8 %": np.where(np.arange(DAYS) % 7 == 6, 0.035, 0.018),
    "2 %, drawn less from day 20": np.full(DAYS, 0.02),
}


def _shifting(name: str, daily: Floats, streams: int, rng: np.random.Generator) -> Certification:
    """Draws by risk from a stream that changes. A state is wrong when the share of the images that passed until that
    day says otherwise; looked at every day, until the last."""
    limit = math.log(1 / ERROR)
    passed = np.round(OF_IMAGES * 5000).astype(int)
    rarer = np.where(np.arange(DAYS) < 20, 1.0, 0.4) if "drawn less" in name else np.ones(DAYS)
    counts = {"certified": 0, "violated": 0, "wrong": 0}
    until: list[int] = []
    for _ in range(streams):
        good: dict[float, int] = {}
        bad: dict[float, int] = {}
        all_bad, seen = 0, set()
        for day in range(DAYS):
            bad_today = rng.binomial(passed, np.minimum(1, daily[day] * OF_BAD / OF_IMAGES))
            all_bad += int(bad_today.sum())
            chances = WEIGHTED * rarer[day]
            for chance, found, fine in zip(
                chances, rng.binomial(bad_today, chances), rng.binomial(passed - bad_today, chances), strict=True
            ):
                bad[chance] = bad.get(chance, 0) + int(found)
                good[chance] = good.get(chance, 0) + int(fine)
            audits = Audits.counted({chance: (good[chance], bad[chance]) for chance in good})
            true = all_bad / (int(passed.sum()) * (day + 1))
            for state, reached, is_wrong in (
                ("certified", log_evidence_below(BOUND, audits, WEIGHTED[0]) >= limit, true >= BOUND),
                ("violated", log_evidence_above(BOUND, audits, WEIGHTED[0]) >= limit, true <= BOUND),
            ):
                if reached:
                    if not seen:
                        until.append(audits.audited)
                    seen |= {state, "wrong"} if is_wrong else {state}
        for each in seen:
            counts[each] += 1
    shares = {each: count / streams for each, count in counts.items()}
    return Certification(
        name, BOUND, **shares, audits_until_decided=median(until) if len(until) * 2 >= streams else None
    )


def _one_look(share: float, days: int, windows: int, rng: np.random.Generator) -> OneLook:
    passed = np.round(OF_IMAGES * 5000 * days).astype(int)
    audits, below, above, widths = [], 0, 0, []
    for _ in range(windows):
        bad = rng.binomial(passed, np.minimum(1, share * OF_BAD / OF_IMAGES))
        found = Audits(
            WEIGHTED,
            rng.binomial(passed - bad, WEIGHTED).astype(float),
            rng.binomial(bad, WEIGHTED).astype(float),
        )
        true = float(bad.sum() / passed.sum())
        interval = estimate(found).interval
        below += true < interval.low
        above += true > interval.high
        audits.append(found.audited)
        widths.append(interval.high - interval.low)
    return OneLook(
        share,
        round(float(np.mean(audits))),
        1 - (below + above) / windows,
        below / windows,
        above / windows,
        float(np.mean(widths)),
    )


def _saving(separation: str, steepness: float, weeks: int, rng: np.random.Generator) -> Saving:
    """The same number of audits drawn evenly and by the plans that the desk would make, which learn from week to week.
    The first four weeks are for learning and do not count."""
    quality = 1 + 4 * rng.beta(5, 2, 7 * PASSED_A_DAY * 2)
    quality = quality[quality > 2.2][: 7 * PASSED_A_DAY]
    chance = 0.0005 + 0.3 / (1 + np.exp(steepness * (quality - 2.2)))
    strata = uniform(BUDGET / PASSED_A_DAY)
    even, planned, shares = [], [], []
    for week in range(weeks + 4):
        bad = rng.random(quality.size) < chance
        point = rng.random(quality.size)
        true = float(bad.mean())
        by_plan = _probabilities(strata, quality)
        drawn = point < by_plan
        if week >= 4:
            shares.append(true)
            planned.append(_share(by_plan[drawn], bad[drawn]) - true)
            evenly = point < BUDGET / PASSED_A_DAY
            even.append(_share(np.full(int(evenly.sum()), BUDGET / PASSED_A_DAY), bad[evenly]) - true)
        if week < 4:
            images = [
                DrawnImage(float(q), float(p), bool(b))
                for q, p, b in zip(quality[drawn], by_plan[drawn], bad[drawn], strict=True)
            ]
            strata = allocate(images, 7, budget_per_day=BUDGET, uniform_share=0.001)
    even_error, planned_error = (math.sqrt(float(np.mean(np.square(errors)))) for errors in (even, planned))
    return Saving(separation, float(np.mean(shares)), even_error, planned_error, (even_error / planned_error) ** 2)


def _probabilities(strata: Sequence[AuditStratum], quality: Floats) -> Floats:
    limits = [stratum.below for stratum in strata if stratum.below is not None]
    found: Floats = np.array([stratum.probability for stratum in strata])[np.searchsorted(limits, quality, "right")]
    return found


def _share(probabilities: Floats, bad: NDArray[np.bool_]) -> float:
    return float((bad / probabilities).sum() / (1 / probabilities).sum())


def _looks_table(rows: Sequence[Looks]) -> Table:
    table = Table(
        "bad images", "Wilson ever wrong", "sequence ever wrong", "its width", title=f"looked at daily for {DAYS} days"
    )
    for row in rows:
        table.add_row(
            f"{row.share:.1%}",
            f"{row.wilson_ever_wrong:.1%}",
            f"{row.sequence_ever_wrong:.1%}",
            f"{row.sequence_width_after_90_days:.2%}",
        )
    return table


def _certificate_table(rows: Sequence[Certification]) -> Table:
    table = Table(
        *("bad images", "certified", "violated", "wrong on some day", "audits until decided"),
        title=f"bound: at most {BOUND:.0%} are bad",
    )
    for row in rows:
        audits = "-" if row.audits_until_decided is None else f"{row.audits_until_decided:,.0f}"
        table.add_row(row.stream, f"{row.certified:.1%}", f"{row.violated:.1%}", f"{row.wrong:.1%}", audits)
    return table


def _one_look_table(rows: Sequence[OneLook]) -> Table:
    table = Table(
        "bad images", "audits", "held", "below", "above", "width", title="95 % intervals for one look, drawn by risk"
    )
    for row in rows:
        table.add_row(
            *(f"{row.share:.1%}", f"{row.audits:,}", f"{row.held:.1%}", f"{row.below:.1%}", f"{row.above:.1%}"),
            f"{row.width:.2%}",
        )
    return table


def _savings_table(rows: Sequence[Saving]) -> Table:
    table = Table(
        *("score separates", "bad images", "error, even", "error, by risk", "labels saved"),
        title=f"weekly share from {BUDGET} audits a day",
    )
    for row in rows:
        table.add_row(
            *(row.separation, f"{row.share:.2%}", f"{row.even_error:.3%}", f"{row.planned_error:.3%}"),
            f"{row.labels_saved:.2f} times",
        )
    return table


if __name__ == "__main__":
    main()
