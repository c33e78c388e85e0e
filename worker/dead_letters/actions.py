"""Redriving and dropping dead letters, each at most once."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal, Protocol

import structlog

from schemas import AuditEntry, DeadLetterAction
from worker.backoff import Backoff
from worker.dead_letters.book import LetterBook
from worker.dead_letters.letter import Letter
from worker.dead_letters.resubmission import CannotRedrive, resubmission
from worker.dead_letters.selection import LetterState
from worker.intake.log import LogError, Output
from worker.outbox import ROOM_FOR_OURS
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

AT_ONCE: Final = 100
"""Letters in one transaction, and in one entry of the audit."""
ATTEMPTS: Final = 6
"""So often a transaction is tried before the error is the caller's."""
_BACKOFF: Final = Backoff(0.5, 4.0, jitter=0.5)


class ActionWriter(Protocol):
    """Appends records, all or none, while nobody else can act on dead letters."""

    def write(self, prepare: Callable[[], Sequence[Output]]) -> None:
        """Keeps everybody else from acting, then calls `prepare` and appends what it returns.

        What `prepare` reads of the actions stays true until the records are appended; otherwise they are not. Raises
        LogError; unless its message says that nothing happened, the outcome is unknown.
        """

    def close(self) -> None: ...


@dataclass(slots=True)
class ActionReport:
    """What became of each letter, by its id."""

    done: list[str] = field(default_factory=list)
    already: dict[str, LetterState] = field(default_factory=dict)
    """Somebody had acted on these before; nothing was done."""
    refused: dict[str, str] = field(default_factory=dict)
    """These cannot be redriven, with the reason; they stay as they were."""


class LetterActions:
    """What one person does in one run, under its id. One thread at a time.

    Each letter is redriven at most once, whatever fails or is killed: the event, the action and the audit entry are
    one transaction, and all earlier actions are read, with everybody else kept out, before it is written. With
    `delivery: at_least_once` there are no transactions, and a crash between event and action repeats the event.
    """

    def __init__(
        self,
        book: LetterBook,
        writer: ActionWriter,
        settings: KafkaSettings,
        *,
        actor: str,
        run: str,
        now: Callable[[], datetime],
        attempts: int = ATTEMPTS,
        sleep: Callable[[float], None] = time.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._book = book
        self._writer = writer
        self._topics = settings.topics
        self._max_bytes = settings.max_message_bytes - ROOM_FOR_OURS
        self._actor = actor
        self._run = run
        self._now = now
        self._attempts = attempts
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311  # jitter is no secret

    def redrive(self, letters: Sequence[Letter], reason: str = "") -> ActionReport:
        """Submits the letters' events again. Raises LogError when the log cannot take them; doing it again is safe."""
        report = ActionReport()
        events: dict[str, Output] = {}
        for letter in letters:
            try:
                events[letter.letter_id] = self._resubmission(letter)
            except CannotRedrive as error:
                report.refused[letter.letter_id] = str(error)
        possible = [letter for letter in letters if letter.letter_id in events]
        self._act("redrive", possible, reason, report, events)
        return report

    def drop(self, letters: Sequence[Letter], reason: str) -> ActionReport:
        """Records that the letters' events will not be submitted again. Raises LogError; doing it again is safe."""
        report = ActionReport()
        self._act("drop", letters, reason, report, {})
        return report

    def _resubmission(self, letter: Letter) -> Output:
        whole = self._book.whole(letter)
        if whole is None:
            raise CannotRedrive(f"{self._topics.dead} no longer holds the letter")
        return resubmission(
            letter,
            whole,
            self._book.source_record(letter) if letter.is_cut else None,
            topic=self._topics.images,
            actor=self._actor,
            at=self._now(),
            max_bytes=self._max_bytes,
        )

    def _act(
        self,
        action: Literal["redrive", "drop"],
        letters: Sequence[Letter],
        reason: str,
        report: ActionReport,
        events: dict[str, Output],
    ) -> None:
        for start in range(0, len(letters), AT_ONCE):
            part = letters[start : start + AT_ONCE]
            failures = 0
            while True:
                found = ActionReport()

                def prepare(part: Sequence[Letter] = part, found: ActionReport = found) -> list[Output]:
                    return self._prepared(action, part, reason, found, events)

                try:
                    self._writer.write(prepare)
                    break
                except LogError as error:
                    failures += 1
                    if failures >= self._attempts:
                        raise
                    # Whatever became of it: the next attempt reads what was committed and does the rest.
                    log.warning("dead_letter_action_failed", action=action, run=self._run, error=str(error))
                    self._sleep(_BACKOFF.seconds(failures, self._rng))
            report.done += found.done
            report.already |= found.already

    def _prepared(
        self,
        action: Literal["redrive", "drop"],
        letters: Sequence[Letter],
        reason: str,
        report: ActionReport,
        events: dict[str, Output],
    ) -> list[Output]:
        """The records for those letters that nobody has acted on. LetterActions come last: see ActionWriter."""
        self._book.refresh()
        due: list[Letter] = []
        for letter in letters:
            before, state = self._book.action(letter), self._book.state(letter)
            if before is not None and before.run == self._run and before.action == action:
                report.done.append(letter.letter_id)  # by an earlier attempt whose outcome was unknown
            elif state is LetterState.OPEN or (state is LetterState.DROPPED and action == "redrive"):
                due.append(letter)
            else:
                report.already[letter.letter_id] = state
        if not due:
            return []
        at = self._now()
        report.done += [letter.letter_id for letter in due]
        actions = [
            DeadLetterAction(
                letter_id=letter.letter_id,
                event_id=letter.event_id,
                action=action,
                at=at,
                actor=self._actor,
                reason=reason,
                run=self._run,
            )
            for letter in due
        ]
        entry = AuditEntry(
            at=at,
            actor=self._actor,
            action=f"dead-letter-{action}",
            subjects=tuple(letter.letter_id for letter in due),
            detail={"run": self._run} | ({"reason": reason} if reason else {}),
        )
        return [
            *(events[letter.letter_id] for letter in due if letter.letter_id in events),
            Output(self._topics.audit, entry.model_dump_json().encode(), self._actor.encode()),
            *(
                Output(self._topics.dead_actions, each.model_dump_json().encode(), each.letter_id.encode())
                for each in actions
            ),
        ]
