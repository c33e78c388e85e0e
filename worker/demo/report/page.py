"""Writes the report: one HTML page without scripts, fonts or pictures from elsewhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from worker.demo.report.entry import ReportEntry
from worker.demo.report.score_charts import histogram, scatter
from worker.demo.report.tally import Tally
from worker.html_report.pages import render as render_page
from worker.html_report.pages import write_page
from worker.rank_correlation import rank_correlation


@dataclass(frozen=True, slots=True)
class ScoreReport:
    """What a report tells. `model` and `policy` are names for people, the digests tell exactly which ones.

    `ignored` counts events that asked for nothing (deletions). `notice` is what a data set's licence asks to be shown.
    """

    title: str
    created_at: datetime
    seconds: float
    model: str
    model_digest: str
    policy: str
    policy_digest: str
    tally: Tally
    ignored: int = 0
    notice: str = ""


@dataclass(frozen=True, slots=True)
class Family:
    """An image beside its degraded copies, in the order of the report's degradations; None where one was not scored."""

    original: ReportEntry
    copies: Sequence[ReportEntry | None]


@dataclass(frozen=True, slots=True)
class Harm:
    """What one degradation did to the scores: the mean change, and how many of the copies fell below their original."""

    name: str
    change: float
    fell: int
    pairs: int


def _families(entries: Sequence[ReportEntry]) -> tuple[Sequence[Harm], Sequence[Family]]:
    """Entries beside their degraded copies, the worst original first."""
    copies: dict[tuple[str, str], ReportEntry] = {}
    for entry in entries:
        if entry.original is not None and entry.degradation is not None:
            copies[entry.original, entry.degradation] = entry
    names = sorted({degradation for _, degradation in copies})
    parents = {original for original, _ in copies}
    families = [
        Family(entry, [copies.get((entry.name, name)) for name in names])
        for entry in entries
        if entry.name in parents and entry.original is None
    ]
    harms = []
    for column, name in enumerate(names):
        changes = [
            copy.quality - family.original.quality
            for family in families
            if (copy := family.copies[column]) is not None
            and copy.quality is not None
            and family.original.quality is not None
        ]
        if changes:
            harms.append(Harm(name, sum(changes) / len(changes), sum(change < 0 for change in changes), len(changes)))
    return harms, families


def render(report: ScoreReport) -> str:
    """The page. Everything that came from outside is escaped; scripts and requests are forbidden by its own policy."""
    entries = report.tally.worst
    judged = [entry for entry in entries if entry.human is not None and entry.quality is not None]
    harms, families = _families(entries)
    return render_page(
        "worker.demo.report",
        "report.html.j2",
        report=report,
        tally=report.tally,
        actions=report.tally.actions(),
        entries=entries,
        histogram=histogram(report.tally.bins),
        scatter=scatter(judged),
        correlation=rank_correlation(
            [entry.human for entry in judged if entry.human is not None],
            [entry.quality for entry in judged if entry.quality is not None],
        ),
        harms=harms,
        families=families,
    )


def write_report(report: ScoreReport, path: Path) -> None:
    """Writes the page, whole or not at all, and the folders above it. Raises OSError."""
    write_page(path, render(report))
