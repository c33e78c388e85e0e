"""Reads the data of `sluice policy tune` and shows its proposal."""

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.table import Table

from schemas import Verdict
from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.lines import read_lines
from worker.review.capacity import MIN_BAD, Proposal, Scored

_DAY_SECONDS = 24 * 3600


@dataclass(frozen=True, slots=True)
class VerdictHistory:
    """The newest verdicts of events, with scores, and the time that they span."""

    scored: tuple[Scored, ...]
    first_at: datetime | None
    last_at: datetime | None

    @classmethod
    def of(cls, verdicts: Iterable[Verdict], known: Mapping[str, bool]) -> "VerdictHistory":
        # Not the verdicts themselves: each takes 4 KB.
        newest: dict[str, tuple[float, datetime]] = {}
        for verdict in verdicts:
            if verdict.scores is not None:
                newest[verdict.event_id] = verdict.scores.quality, verdict.judged_at
        times = [judged_at for _, judged_at in newest.values()]
        scored = tuple(Scored(quality, known.get(event_id)) for event_id, (quality, _) in newest.items())
        return cls(scored, min(times, default=None), max(times, default=None))

    def images_a_day(self) -> float:
        """Raises UsageError when the verdicts span too little time."""
        if self.first_at is None or self.last_at is None:
            return 1.0  # without verdicts, the proposal reports the error
        seconds = (self.last_at - self.first_at).total_seconds()
        if seconds < 60:
            raise UsageError(
                "the verdicts span less than a minute, too little to estimate images per day; use --images-a-day"
            )
        return len(self.scored) * _DAY_SECONDS / seconds


def known_bad(
    decisions: Path | None, human_scores: Path | None, bad_below: float, bad_lines: Counter[str]
) -> dict[str, bool]:
    """Event id → whether people found the image bad. A decision overrides a score. Raises UsageError."""
    known: dict[str, bool] = {}
    if human_scores is not None:
        known |= dict(_scored_by_people(human_scores, bad_below))
    if decisions is not None:
        for place, line in read_lines(decisions):
            try:
                told = json.loads(line)
                event_id, status = str(told["item"]["event_id"]), told["status"]
            except (ValueError, KeyError, TypeError):
                bad_lines[str(decisions)] += 1
                console.err.print(f"{console.printable(place)}: not a line of `sluice desk export`", markup=False)
                continue
            if status in ("approved", "rejected"):
                known[event_id] = status == "rejected"
    return known


def table(proposal: Proposal) -> Table:
    """A table of thresholds with their cost and yield. The proposal is marked."""
    found = Table("review below", "of all", "items a day", "bad ones seen", "bad among seen", "")
    for column in found.columns[:5]:
        column.justify = "right"
    for trade in proposal.trades:
        chosen = trade == proposal.chosen
        found.add_row(
            f"{trade.threshold:.3f}",
            f"{trade.share:.1%}",
            f"{trade.items_a_day:,.0f}",
            "-" if trade.recall is None else f"{trade.recall:.0%}",
            "-" if trade.precision is None else f"{trade.precision:.0%}",
            "< proposed" if chosen else "",
            style="bold" if chosen else None,
        )
    return found


def remarks(proposal: Proposal) -> Iterator[str]:
    yield (
        f"reviewers can take {proposal.budget_a_day:,.0f} items a day of {proposal.images_a_day:,.0f} images: "
        f"review what scores below {proposal.chosen.threshold:.3f}"
    )
    if proposal.bad < MIN_BAD:
        yield (
            f"how many bad images that finds is unknown: {proposal.bad} images are known to be bad, and at least "
            f"{MIN_BAD} are needed (--decisions, --human-scores)"
        )
    elif proposal.biased:
        yield (
            "people judged only images with low scores, so bad images with higher scores are not counted: the "
            "true share of bad images found is lower (the audit queue measures it)"
        )


def _scored_by_people(path: Path, bad_below: float) -> Iterator[tuple[str, bool]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if not {"event_id", "score"} <= set(reader.fieldnames or ()):
                raise UsageError(f"{path}: the first row must name the columns event_id and score")
            for row in reader:
                try:
                    yield row["event_id"], float(row["score"]) < bad_below
                except (TypeError, ValueError):
                    raise UsageError(f"{path}, line {reader.line_num}: the score is not a number") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: {error}") from error
