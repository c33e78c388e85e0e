"""JSON lines: an item a line, whole, with its decisions."""

import json
from collections.abc import Iterable, Iterator
from typing import TextIO

from worker.review.answers import ItemView
from worker.review.interchange.votes import ImportedVote, Refusal, parsed


def write(items: Iterable[ItemView], file: TextIO) -> int:
    number = 0
    for view in items:
        number += 1
        line = {
            "item": view.item.model_dump(mode="json", exclude={"features"}),
            "status": view.status,
            "decisions": [decision.model_dump(mode="json") for decision in view.history],
        }
        file.write(json.dumps(line, separators=(",", ":"), ensure_ascii=False) + "\n")
    return number


def read(file: TextIO) -> Iterator[ImportedVote | Refusal]:
    """Votes, one object a line: `item_id`, `outcome`, `reviewer`, and where given `labels`, `note`, `seconds_spent`,
    `decided_at`.

    Lines as `write` makes them are read too: each of their votes.
    """
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            told = json.loads(line)
        except ValueError as error:
            yield Refusal(place, f"not JSON: {error}")
            continue
        if isinstance(told, dict) and isinstance(told.get("decisions"), list):
            votes = [d for d in told["decisions"] if isinstance(d, dict) and d.get("outcome") in ("approve", "reject")]
            yield from (parsed(place, vote) for vote in votes)
        else:
            yield parsed(place, told) if isinstance(told, dict) else Refusal(place, "expected an object")
