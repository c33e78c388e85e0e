"""Parses points in time."""

import re
from datetime import UTC, datetime, timedelta

from worker.cli.errors import UsageError

_AGO = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def point_in_time(text: str, option: str, now: datetime) -> datetime:
    """Parses `2026-11-30` or `2026-11-30T14:05`, with an offset or in UTC, or a time ago: `90m`, `2h`, `3d`. Raises
    UsageError, which names the option.
    """
    if ago := _AGO.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise UsageError(f"{option}: expected a time such as 2026-11-30T14:05Z or 2h, got {text!r}") from error
    return found if found.tzinfo else found.replace(tzinfo=UTC)
