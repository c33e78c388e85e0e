"""How often an interval is ever wrong when people look at it every day, and how many audits a certificate takes.

Simulated streams with fixed seeds; there is nothing to time.

python -m ops.benchmarks.trust_benchmark --out ops/benchmarks
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median

import numpy as np
from rich.table import Table

from ops.benchmarks.results import Options, machine, option_parser, publish
from worker.charts import line_chart
from worker.review.sampling import wilson
from worker.trust.certificate import certify
from worker.trust.confidence import confidence_interval

SEED = 19
DAYS = 90
AUDITS_A_DAY = 50
SHARES = (0.002, 0.005, 0.01, 0.02, 0.05)
BOUND = 0.02
MOST_DAYS = 400


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of the streams with this share of bad images, the part in which an interval missed it on some day."""

    share: float
    wilson_ever_wrong: float
    sequence_ever_wrong: float
    sequence_width_after_90_days: float


@dataclass(frozen=True, slots=True)
class Certification:
    """Streams with this share of bad images: how many were certified or found to violate the bound by the last day, and
    after how many audits in the median (None where fewer than half were)."""

    share: float
    bound: float
    certified: float
    violated: float
    audits_until_decided: float | None


def main() -> None:
    args = option_parser(__doc__).parse_args()
    options = Options(short=args.short, out=args.out)
    streams = 40 if options.short else 2000
    rng = np.random.default_rng(SEED)
    coverage = [_coverage(share, streams, rng) for share in SHARES]
    certificates = [_certification(share, streams // 4, rng) for share in (0.0, *SHARES)]
    report = {
        "measured_on": machine("numpy"),
        "seed": SEED,
        "streams": streams,
        "days": DAYS,
        "audits_a_day": AUDITS_A_DAY,
        "coverage": [asdict(row) for row in coverage],
        "certification": [asdict(row) for row in certificates],
    }
    picture = line_chart(
        f"Streams in which a 95 % interval was wrong on some day of {DAYS}",
        "bad images among those that passed, %",
        "% of streams",
        {
            "Wilson": [(row.share * 100, row.wilson_ever_wrong * 100) for row in coverage],
            "confidence sequence": [(row.share * 100, row.sequence_ever_wrong * 100) for row in coverage],
        },
    )
    publish("trust", options, report, [_coverage_table(coverage), _certificate_table(certificates)], picture)


def _coverage(share: float, streams: int, rng: np.random.Generator) -> Coverage:
    missed = np.cumsum(rng.binomial(AUDITS_A_DAY, share, (streams, DAYS)), axis=1)
    fixed = _Ends(lambda hits, trials: (wilson(hits, trials).low, wilson(hits, trials).high))
    always = _Ends(lambda hits, trials: (confidence_interval(hits, trials).low, confidence_interval(hits, trials).high))
    last = [always(int(hits), DAYS * AUDITS_A_DAY) for hits in missed[:, -1]]
    return Coverage(
        share,
        _ever_wrong(missed, share, fixed),
        _ever_wrong(missed, share, always),
        float(np.mean([high - low for low, high in last])),
    )


class _Ends:
    """Remembers intervals: streams share most of their counts."""

    def __init__(self, interval: Callable[[int, int], tuple[float, float]]) -> None:
        self._interval = interval
        self._known: dict[tuple[int, int], tuple[float, float]] = {}

    def __call__(self, hits: int, trials: int) -> tuple[float, float]:
        key = (hits, trials)
        if key not in self._known:
            self._known[key] = self._interval(hits, trials)
        return self._known[key]


def _ever_wrong(missed: "np.ndarray[tuple[int, int], np.dtype[np.int64]]", share: float, ends: _Ends) -> float:
    def is_wrong(stream: Sequence[int]) -> bool:
        intervals = (ends(int(hits), AUDITS_A_DAY * (day + 1)) for day, hits in enumerate(stream))
        return any(not low <= share <= high for low, high in intervals)

    return float(np.mean([is_wrong(stream) for stream in missed]))


def _certification(share: float, streams: int, rng: np.random.Generator) -> Certification:
    missed = np.cumsum(rng.binomial(AUDITS_A_DAY, share, (streams, MOST_DAYS)), axis=1)
    audits: list[int] = []
    states: list[str] = []
    for stream in missed:
        for day, hits in enumerate(stream):
            state = certify(int(hits), AUDITS_A_DAY * (day + 1), at_most=BOUND).state
            if state != "undecided":
                states.append(state)
                audits.append(AUDITS_A_DAY * (day + 1))
                break
    return Certification(
        share,
        BOUND,
        states.count("certified") / streams,
        states.count("violated") / streams,
        median(audits) if len(audits) >= streams / 2 else None,
    )


def _coverage_table(rows: Sequence[Coverage]) -> Table:
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
        "bad images", "certified", "violated", "audits until decided", title=f"bound: at most {BOUND:.0%} are bad"
    )
    for row in rows:
        audits = "-" if row.audits_until_decided is None else f"{row.audits_until_decided:,.0f}"
        table.add_row(f"{row.share:.1%}", f"{row.certified:.1%}", f"{row.violated:.1%}", audits)
    return table


if __name__ == "__main__":
    main()
