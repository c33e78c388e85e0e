"""Reads the dead letters and the actions on them."""

import time
from collections.abc import Callable
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import DeadLetter, DeadLetterAction
from worker.dead_letters.letter import Letter, read_letter
from worker.dead_letters.selection import LetterState, Selection
from worker.intake.log import LogError, Partition, Record
from worker.intake.topic_reader import TopicReader
from worker.settings import TopicSettings

log = structlog.get_logger(__name__)

MOST_LETTERS: Final = 100_000
"""Maximum letters in memory, about 1 KB each. The oldest are dropped beyond that."""
WAIT_SECONDS: Final = 0.2
PATIENCE_SECONDS: Final = 30.0
"""A log that yields nothing for so long, though its end has not been reached, is an error."""


class LetterBook:
    """The letters and actions that were read. `refresh` reads new ones. Not thread-safe."""

    def __init__(
        self, reader: TopicReader, topics: TopicSettings, clock: Callable[[], float], *, most: int = MOST_LETTERS
    ) -> None:
        """`clock` is monotonic, in seconds."""
        self._reader = reader
        self._topics = topics
        self._clock = clock
        self._most = most
        self._letters: dict[str, Letter] = {}
        self._actions: dict[str, DeadLetterAction] = {}
        self._positions: dict[Partition, int] = {}
        self._ends: dict[Partition, int] = {}
        self.left_out = 0
        """Letters that were let go because there are too many."""
        self.unreadable = 0
        """Records in the two topics that are neither letters nor actions."""

    @property
    def progress(self) -> tuple[int, int]:
        """Records read, and how many there were when the last refresh began."""
        return sum(min(at, self._ends[p]) for p, at in self._positions.items()), sum(self._ends.values())

    def refresh(
        self, seconds: float | None = None, on_progress: Callable[[int, int], None] = lambda _read, _total: None
    ) -> bool:
        """Reads up to the current end, for at most `seconds`. Returns whether it got there. Raises LogError."""
        self._ends = {**self._reader.ends(self._topics.dead), **self._reader.ends(self._topics.dead_actions)}
        for partition in self._ends:
            self._positions.setdefault(partition, 0)
        started = moved = self._clock()
        while any(self._positions[partition] < end for partition, end in self._ends.items()):
            now = self._clock()
            if seconds is not None and now - started >= seconds:
                return False
            if now - moved > PATIENCE_SECONDS:
                raise LogError(f"{self._topics.dead} could not be read to its end; try again")
            batch = self._reader.read(self._positions, WAIT_SECONDS)
            for record in batch.records:
                self._take(record)
            if any(batch.positions[partition] != at for partition, at in self._positions.items()):
                moved = now
            self._positions.update(batch.positions)
            on_progress(*self.progress)
        return True

    def state(self, letter: Letter) -> LetterState:
        action = self._actions.get(letter.letter_id)
        if action is None:
            return LetterState.OPEN
        return LetterState.REDRIVEN if action.action == "redrive" else LetterState.DROPPED

    def action(self, letter: Letter) -> DeadLetterAction | None:
        """The last action on the letter."""
        return self._actions.get(letter.letter_id)

    def get(self, letter_id: str) -> Letter | None:
        return self._letters.get(letter_id)

    def find(self, selection: Selection) -> list[Letter]:
        """The selected letters, newest first."""
        found = [letter for letter in self._letters.values() if selection.takes(letter, self.state(letter))]
        return sorted(found, key=lambda letter: (letter.failed_at, letter.letter_id), reverse=True)

    def whole(self, letter: Letter) -> DeadLetter | None:
        """The letter with its record; None when the topic keeps it no more, and it is then forgotten.

        Raises LogError.
        """
        record = self._reader.record(*letter.place)
        if record is None:
            self._letters.pop(letter.letter_id, None)
            return None
        return read_letter(record)[1]

    def source_record(self, letter: Letter) -> Record | None:
        """The record that the letter is about, where its own topic still keeps it. Raises LogError."""
        return self._reader.record(Partition(letter.source.topic, letter.source.partition), letter.source.offset)

    def _take(self, record: Record) -> None:
        try:
            if record.partition.topic == self._topics.dead:
                letter, _ = read_letter(record)
                self._letters.setdefault(letter.letter_id, letter)
            else:
                action = DeadLetterAction.model_validate_json(record.value or b"")
                self._actions[action.letter_id] = action
        except ValidationError:
            self.unreadable += 1
            log.warning("dead_letter_unreadable", topic=record.partition.topic, offset=record.offset)
        while len(self._letters) > self._most:
            del self._letters[next(iter(self._letters))]
            self.left_out += 1


def open_book(reader: TopicReader, topics: TopicSettings) -> LetterBook:
    return LetterBook(reader, topics, time.monotonic)
