"""Dead letters for the desk: opened when somebody first asks, then read on with each question."""

import threading
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from worker.dead_letters.actions import ActionReport, LetterActions
from worker.dead_letters.book import LetterBook, open_book
from worker.dead_letters.letter import Letter
from worker.dead_letters.selection import Selection
from worker.dead_letters.view import LetterDetail, LetterView, detail, view
from worker.dead_letters.writers import open_writer
from worker.review.open_topics import open_topics
from worker.settings import Settings

READ_SECONDS: Final = 2.0
"""Of one question at most so much is spent on reading on; the answer says how far that came."""
ATTEMPTS: Final = 2
"""A person waits for the answer, and can press the button again."""


@dataclass(frozen=True, slots=True)
class FoundLetters:
    """A part of the letters that are meant, newest first, and counts of all of them. Until `is_complete`, `read` of
    `total` records have been read, and more may be found."""

    letters: tuple[LetterView, ...]
    count: int
    reasons: dict[str, int]
    tenants: tuple[str, ...]
    is_complete: bool
    read: int
    total: int
    left_out: int


class DeadLetters:
    """Safe for many threads, one at a time. All methods raise LogError."""

    def __init__(self, settings: Settings, data: Path | None, now: Callable[[], datetime]) -> None:
        self._settings = settings
        self._data = data
        self._now = now
        self._lock = threading.Lock()
        self._open = ExitStack()
        self._book: LetterBook | None = None

    def find(self, selection: Selection, *, start: int, limit: int) -> FoundLetters:
        with self._lock:
            book = self._opened()
            is_complete = book.refresh(READ_SECONDS)
            found = book.find(selection)
            read, total = book.progress
            return FoundLetters(
                letters=tuple(view(book, letter) for letter in found[start : start + limit]),
                count=len(found),
                reasons=dict(Counter(letter.reason.value for letter in found).most_common()),
                tenants=tuple(sorted({letter.tenant for letter in found if letter.tenant is not None})),
                is_complete=is_complete,
                read=read,
                total=total,
                left_out=book.left_out,
            )

    def ids(self, selection: Selection, limit: int) -> list[str]:
        """The ids of the letters that are meant, oldest first."""
        with self._lock:
            book = self._opened()
            book.refresh(READ_SECONDS)
            return [letter.letter_id for letter in book.find(selection)[:limit]][::-1]

    def detail(self, letter_id: str) -> LetterDetail | None:
        with self._lock:
            book = self._opened()
            book.refresh(READ_SECONDS)
            letter = book.get(letter_id)
            whole = None if letter is None else book.whole(letter)
            return None if letter is None or whole is None else detail(book, letter, whole)

    def redrive(self, letter_ids: Sequence[str], actor: str, reason: str) -> ActionReport:
        """See `LetterActions.redrive`; letters that are not known are refused."""
        return self._act(letter_ids, actor, lambda actions, letters: actions.redrive(letters, reason))

    def drop(self, letter_ids: Sequence[str], actor: str, reason: str) -> ActionReport:
        """See `LetterActions.drop`; letters that are not known are refused."""
        return self._act(letter_ids, actor, lambda actions, letters: actions.drop(letters, reason))

    def close(self) -> None:
        with self._lock:
            self._open.close()
            self._book = None

    def _act(
        self, letter_ids: Sequence[str], actor: str, run: Callable[[LetterActions, list[Letter]], ActionReport]
    ) -> ActionReport:
        with self._lock:
            book = self._opened()
            actions = LetterActions(
                book,
                self._writer,
                self._settings.kafka,
                actor=actor,
                run=uuid.uuid4().hex,
                now=self._now,
                attempts=ATTEMPTS,
            )
            known = {letter_id: letter for letter_id in letter_ids if (letter := book.get(letter_id)) is not None}
            report = run(actions, list(known.values()))
            for letter_id in letter_ids:
                if letter_id not in known:
                    report.refused[letter_id] = "there is no such letter, or its topic keeps it no more"
            return report

    def _opened(self) -> LetterBook:
        if self._book is None:
            with ExitStack() as opening:
                topics = opening.enter_context(closing(open_topics(self._settings, self._data)))
                self._writer = opening.enter_context(closing(open_writer(self._settings, self._data)))
                self._open = opening.pop_all()
            self._book = open_book(topics, self._settings.kafka.topics)
        return self._book
