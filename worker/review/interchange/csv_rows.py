"""CSV (RFC 4180) with a header: a row an item, with the vote that counted last."""

import csv
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any, Final, TextIO

from worker.review.answers import ItemView
from worker.review.interchange.votes import ImportedVote, InterchangeError, Refusal, address, parsed
from worker.review.item_state import VOTES

COLUMNS: Final = (
    *("item_id", "event_id", "tenant", "queue", "status", "outcome", "reviewer", "decided_at", "seconds_spent"),
    *("labels", "note", "quality", "rule", "prompt", "generator", "image", "created_at"),
)
_NEEDED: Final = ("item_id", "outcome", "reviewer")
_FORMULA: Final = frozenset("=+-@")
"""A cell that begins with one of these is a formula. Some spreadsheets take full-width forms for the same, and skip
blanks and control characters in front."""


def write(items: Iterable[ItemView], file: TextIO) -> int:
    writer = csv.DictWriter(file, COLUMNS)
    writer.writeheader()
    number = 0
    for view in items:
        number += 1
        writer.writerow({name: _safe(value) for name, value in _row(view).items()})
    return number


def read(file: TextIO) -> Iterator[ImportedVote | Refusal]:
    """Votes by the columns item_id, outcome and reviewer, and where there labels (parted by blanks), note,
    seconds_spent and decided_at; rows without an outcome are passed over: nobody has voted. Raises InterchangeError."""
    reader = csv.DictReader(file)
    missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
    if missing:
        raise InterchangeError(
            f"the first row must name the columns {', '.join(_NEEDED)}; absent: {', '.join(missing)}"
        )
    try:
        for row in reader:
            told: dict[str, Any] = {name: _plain(value) for name, value in row.items() if name and value}
            if "outcome" in told:
                yield parsed(f"line {reader.line_num}", {**told, "labels": str(told.get("labels", "")).split()})
    except csv.Error as error:
        raise InterchangeError(f"line {reader.line_num}: {error}") from error


def _row(view: ItemView) -> dict[str, Any]:
    item = view.item
    vote = next((decision for decision in reversed(view.history) if decision.outcome in VOTES), None)
    return {
        "item_id": item.item_id,
        "event_id": item.event_id,
        "tenant": item.tenant,
        "queue": item.queue,
        "status": view.status.value,
        "outcome": vote.outcome if vote else None,
        "reviewer": vote.reviewer if vote else None,
        "decided_at": vote.decided_at.isoformat() if vote else None,
        "seconds_spent": vote.seconds_spent if vote else None,
        "labels": " ".join(vote.labels) if vote else None,
        "note": vote.note if vote else None,
        "quality": item.scores.quality if item.scores else None,
        "rule": item.rule,
        "prompt": item.prompt,
        "generator": item.generator,
        "image": address(item.image),
        "created_at": item.created_at.isoformat(),
    }


def _safe(value: Any) -> Any:
    """Text that a spreadsheet would take for a formula gets an apostrophe in front: prompts come from strangers."""
    return f"'{value}" if isinstance(value, str) and _is_guarded(value) else value


def _plain(value: Any) -> Any:
    """The text without the apostrophe that `_safe` put in front."""
    return value[1:] if isinstance(value, str) and value.startswith("'") and _is_guarded(value[1:]) else value


def _is_guarded(text: str) -> bool:
    """Whether a spreadsheet might take the text for a formula, or it begins as a guarded one does."""
    first = text[:1]
    if first == "'" or unicodedata.category(first or "a")[0] in "CZ":
        return True
    return unicodedata.normalize("NFKC", first)[:1] in _FORMULA
