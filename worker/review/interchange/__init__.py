"""Items and decisions for other tools, and votes from them: JSON lines, CSV, Label Studio."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final, TextIO

from worker.review.answers import ItemView
from worker.review.interchange import csv_rows, json_lines, label_studio
from worker.review.interchange.votes import ImportedVote, InterchangeError, Refusal

__all__ = ["READERS", "WRITERS", "ImportedVote", "InterchangeError", "Refusal"]

WRITERS: Final[Mapping[str, Callable[[Iterable[ItemView], TextIO], int]]] = {
    "jsonl": json_lines.write,
    "csv": csv_rows.write,
    "label-studio": label_studio.write,
}
"""By format: writes items with their decisions; how many."""

READERS: Final[Mapping[str, Callable[[TextIO], Iterable[ImportedVote | Refusal]]]] = {
    "jsonl": json_lines.read,
    "csv": csv_rows.read,
    "label-studio": label_studio.read,
}
"""By format: the votes of a file, and what in it was none. Raises InterchangeError for a file of another kind."""
