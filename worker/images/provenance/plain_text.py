"""Foreign text, made fit for verdicts and pages."""

import re
import unicodedata
from typing import Any, Final

from schemas.provenance import TEXT_CHARACTERS

_READ: Final = 4 * TEXT_CHARACTERS
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}")
MAX_STEPS: Final = 1_000_000


def plain(value: Any) -> str | None:
    """The text on one line, without control, format and surrogate characters, cut; None where nothing is left."""
    if not isinstance(value, str):
        return None
    # Categories Cc, Cf, Cs, Co and Cn: none of them is seen, and some turn the direction of what follows.
    seen = "".join(
        " " if character.isspace() else character
        for character in value[:_READ]
        if character.isspace() or unicodedata.category(character)[0] != "C"
    )
    return " ".join(seen.split())[:TEXT_CHARACTERS].rstrip() or None


def seed(value: Any) -> str | None:
    """A seed as digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    if isinstance(value, int):
        return str(value) if abs(value) < 10**20 else None
    text = value.strip() if len(value) < 64 else ""
    return text if _NUMBER.fullmatch(text) else None


def steps(value: Any) -> int | None:
    """A number of steps within the limits; None for anything else."""
    digits = seed(value)
    return int(digits) if digits is not None and 0 <= int(digits) <= MAX_STEPS else None
