"""Selects dead letters."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from schemas import FailureReason
from worker.dead_letters.letter import Letter


class LetterState(StrEnum):
    """The state of a letter."""

    OPEN = "open"
    """No action yet."""
    REDRIVEN = "redriven"
    """Its event was submitted again. If it fails again, it gets a new letter."""
    DROPPED = "dropped"
    """Marked as not to be submitted again, with a reason. It can still be redriven."""


@dataclass(frozen=True, slots=True)
class Selection:
    """All given conditions must match; an empty one matches anything. Times compare with when the event failed: `since`
    is included, `until` is not. `partitions` are those of the topic that the event came from.
    """

    state: LetterState | None = LetterState.OPEN
    ids: tuple[str, ...] = ()
    """Ids, or how they begin."""
    reasons: frozenset[FailureReason] = frozenset()
    tenants: frozenset[str] = frozenset()
    partitions: frozenset[int] = frozenset()
    since: datetime | None = None
    until: datetime | None = None
    text: str = ""
    """Part of the message or of the event's id, in any case."""

    def takes(self, letter: Letter, state: LetterState) -> bool:
        """Whether the letter, in this state, is meant."""
        text = self.text.casefold()
        return (
            self.state in (None, state)
            and (not self.ids or letter.letter_id.startswith(self.ids))
            and (not self.reasons or letter.reason in self.reasons)
            and (not self.tenants or letter.tenant in self.tenants)
            and (not self.partitions or letter.source.partition in self.partitions)
            and (self.since is None or letter.failed_at >= self.since)
            and (self.until is None or letter.failed_at < self.until)
            and (not text or text in letter.message.casefold() or text in letter.event_id.casefold())
        )
