"""Dead letters as the command line and the desk show them."""

from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from schemas import DeadLetter, DeadLetterAction, FailureReason, Source
from worker.dead_letters.book import LetterBook
from worker.dead_letters.letter import HISTORY_HEADER, Letter, Redrive
from worker.dead_letters.selection import LetterState

TEXT_BYTES: Final = 64 * 1024
"""Of a record's value, so much is shown."""
HEADER_CHARACTERS: Final = 1000


class LetterView(BaseModel):
    """A letter in a list. `source` is where the event came from; `action` is what was done last."""

    model_config = ConfigDict(frozen=True)

    letter_id: str
    state: LetterState
    event_id: str
    item_id: str
    """The review item that people got in place of a verdict with scores."""
    tenant: str | None
    failed_at: datetime
    reason: FailureReason
    message: str
    source: Source
    payload_size: int
    is_cut: bool
    history: tuple[Redrive, ...]
    action: DeadLetterAction | None


class LetterDetail(LetterView):
    """A letter looked at: with its whole message and its record. `text` is the beginning of the record's value; what is
    not UTF-8 in it, or in headers, is replaced."""

    attempts: int
    key: str | None
    headers: list[tuple[str, str]]
    text: str | None
    text_is_cut: bool


def view(book: LetterBook, letter: Letter) -> LetterView:
    return LetterView(**_fields(book, letter))


def detail(book: LetterBook, letter: Letter, whole: DeadLetter) -> LetterDetail:
    payload = whole.payload
    return LetterDetail(
        **_fields(book, letter) | {"message": whole.failure.message},
        attempts=whole.failure.attempts,
        key=None if whole.key is None else _text(whole.key),
        headers=[
            (name[:HEADER_CHARACTERS], _text(value or b"")[:HEADER_CHARACTERS])
            for name, value in whole.headers
            if name != HISTORY_HEADER
        ],
        text=None if payload is None else _text(payload[:TEXT_BYTES]),
        text_is_cut=payload is not None and whole.payload_size > min(TEXT_BYTES, len(payload)),
    )


def _fields(book: LetterBook, letter: Letter) -> dict[str, Any]:
    return {
        "letter_id": letter.letter_id,
        "state": book.state(letter),
        "event_id": letter.event_id,
        "item_id": letter.verdict_id,
        "tenant": letter.tenant,
        "failed_at": letter.failed_at,
        "reason": letter.reason,
        "message": letter.message,
        "source": letter.source,
        "payload_size": letter.payload_size,
        "is_cut": letter.is_cut,
        "history": letter.history,
        "action": book.action(letter),
    }


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="replace")
