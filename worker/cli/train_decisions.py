"""`sluice train --from-decisions`: adjusts heads to reviewers' decisions and compares them with the live heads."""

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from schemas import Decision, ReviewItem
from worker.cli import console
from worker.cli.errors import UsageError
from worker.cli.events import explain
from worker.cli.examples import say, write
from worker.cli.lines import read_lines

if TYPE_CHECKING:
    from worker.model.head_training.decisions import Comparison, DecidedItems
    from worker.model.head_training.run import Start

Record = TypeVar("Record", Decision, ReviewItem)


@dataclass(frozen=True, slots=True)
class Gathered:
    """The items to train on, and how many could not be used, by reason."""

    decided: "DecidedItems"
    left_out: Counter[str]


def gather_decisions(start: "Start", decisions: Path, items: Path, models: Sequence[str]) -> Gathered:
    """Reads both files; `models`: digests of the models whose items are used. Raises UsageError, which names the line,
    and DataError if too few items can be used.
    """
    from worker.model.head_training.decisions import gather, labels

    standing = labels(_read(decisions, Decision))
    return Gathered(*gather(start.manifest, _read(items, ReviewItem), standing, models))


def refresh_heads(start: "Start", gathered: Gathered, seed: int, to: Path, version: str) -> None:
    """Trains, compares, writes the run into its folder and prints a summary. Raises DataError and CommandFailed."""
    from worker.model.head_training.decisions import compare, refresh
    from worker.model.head_training.result import METRICS, MODEL, write_model

    started = time.perf_counter()
    decided, manifest = gathered.decided, start.manifest
    comparison = compare(start, decided, seed)
    made = write_model(
        start,
        refresh(start, decided, seed),
        to / MODEL,
        version=version,
        training_data=(*manifest.training_data, f"{len(decided):,} decisions of reviewers"),
    )
    seconds = time.perf_counter() - started
    figures = {
        **asdict(comparison),
        "left_out": dict(gathered.left_out),
        "live": manifest.digest,
        "refreshed": made.digest,
        "live_area": comparison.live,
        "refreshed_area": comparison.refreshed,
        "seconds": seconds,
    }
    write(to / METRICS, json.dumps(figures, indent=2) + "\n")
    _tell(gathered, comparison)
    say(f"wrote {to / MODEL} in {seconds:.1f} s: {made.name} {made.version}, {made.digest}")


def _tell(gathered: Gathered, found: "Comparison") -> None:
    for reason, number in gathered.left_out.items():
        console.err.print(f"skipped: {number:,} items {reason}", markup=False)
    say(
        f"{found.items:,} items, {found.approved:,} approved and {found.rejected:,} rejected. An "
        f"approved one scores above a rejected one: live {found.live:.1%}, refreshed {found.refreshed:.1%} "
        f"of pairs not learned from (gain {found.gain_low:+.1%} to {found.gain_high:+.1%}); scores moved by "
        f"{found.moved:.2f} points on average"
    )
    if (warning := warn(found)) is not None:
        say(warning)


def warn(found: "Comparison") -> str | None:
    """A warning against promoting the new heads; None if they are better with confidence."""
    if found.gain_high < 0:
        return "the new heads agree less with reviewers than the live ones do: do not promote this model"
    if found.gain_low <= 0:
        return "the gain is not significant: collect more decisions before you promote this model"
    return None


def _read(file: Path, kind: type[Record]) -> Iterator[Record]:
    """The records of a file of JSON lines. Raises UsageError, which names the line."""
    for where, line in read_lines(file):
        try:
            yield kind.model_validate_json(line)
        except ValidationError as error:
            raise UsageError(f"{where}: {explain(error)}") from error
