"""Which other members of a group are dead, without comparing the clocks of two processes.

Each member counts its heartbeats. A member is dead when its count has stood still for a session's length by the clock
of the one who looks, or when its process is gone. So it does not matter what time it is anywhere.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

_PROC = Path("/proc")
_ENDED = ("Z", "X")
"""States of a process that has ended and that its parent has not asked for yet."""


class PeerWatch:
    """What one member has seen of the others. One thread at a time."""

    def __init__(self, session_seconds: float) -> None:
        self._session_seconds = session_seconds
        self._seen: dict[str, tuple[float, float]] = {}
        """By member: its count, and when it had changed."""

    def dead(self, beats: Mapping[str, float], now: float) -> list[str]:
        """The members that are dead; `beats` are the counts of all others, `now` is this process's monotonic clock."""
        self._seen = {
            member: seen if (seen := self._seen.get(member)) is not None and seen[0] == beat else (beat, now)
            for member, beat in beats.items()
        }
        return [
            member
            for member, (_, since) in self._seen.items()
            if now - since > self._session_seconds or _is_gone(member)
        ]


def new_member() -> str:
    """A name that no other member has, which tells the process that it belongs to where /proc does."""
    return f"{_process(os.getpid()) or 'unknown'}/{uuid4().hex}"


def _is_gone(member: str) -> bool:
    """Whether the member's process has ended. False where that is unknown: on another system, in another container."""
    process, _, _ = member.rpartition("/")
    system, _, rest = process.partition(":")
    number, _, _ = rest.partition(":")
    if not number.isdecimal() or system != _system():
        return False
    return _process(int(number)) != process


def _process(number: int) -> str | None:
    """`system:process id:start time`; the start time tells apart those that had one id after the other."""
    system = _system()
    try:
        # Behind the command's name in parentheses, which may hold anything: the state, and as 20th the start time.
        fields = (_PROC / str(number) / "stat").read_text().rpartition(")")[2].split()
        state, started = fields[0], fields[19]
    except (OSError, IndexError):
        return None
    return f"{system}:{number}:{started}" if system and state not in _ENDED else None


def _system() -> str | None:
    """This boot of the machine, and the container: a process's id means something only within both."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}-{(_PROC / 'self/ns/pid').stat().st_ino}"
    except OSError:
        return None
