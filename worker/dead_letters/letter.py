"""A dead letter as lists show it, and the history that a redriven record carries."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas import DeadLetter, FailureReason, Source
from schemas.base import Identifier, Timestamp
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, parse

HISTORY_HEADER: Final = "sluice-redrive"
"""A redriven record has one header of this name for each time it was redriven, oldest first."""
HISTORY_LENGTH: Final = 20
"""At most so many redrives are kept in the headers; the oldest go first."""
NO_EVENT: Final = "record:"
"""How the event id of a letter begins whose record holds no event."""
_MESSAGE_CHARACTERS: Final = 300


class Redrive(BaseModel):
    """One entry of a record's history: which letter was redriven, why it had failed, when and by whom."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    letter_id: Identifier
    failed_at: Timestamp
    reason: FailureReason
    redriven_at: Timestamp
    actor: Identifier


@dataclass(frozen=True, slots=True)
class Letter:
    """What a list shows of a dead letter: everything but the record itself. `message` is cut to 300 characters."""

    letter_id: str
    place: tuple[Partition, int]
    """Partition and offset in the dead-letter topic."""
    event_id: str
    verdict_id: str
    tenant: str | None
    failed_at: datetime
    reason: FailureReason
    message: str
    source: Source
    payload_size: int
    is_cut: bool
    """The letter holds only the beginning of its record."""
    history: tuple[Redrive, ...]


def read_letter(record: Record) -> tuple[Letter, DeadLetter]:
    """The letter in a record of the dead-letter topic. Raises pydantic's ValidationError when it holds none."""
    letter = DeadLetter.model_validate_json(record.value or b"")
    message = letter.failure.message
    if len(message) > _MESSAGE_CHARACTERS:
        message = f"{message[: _MESSAGE_CHARACTERS - 1]}…"
    shown = Letter(
        letter_id=letter_id(letter),
        place=(record.partition, record.offset),
        event_id=letter.event_id,
        verdict_id=letter.verdict_id,
        tenant=letter.tenant or _tenant_in(letter),
        failed_at=letter.failed_at,
        reason=letter.failure.reason,
        message=message,
        source=letter.source,
        payload_size=letter.payload_size,
        is_cut=letter.payload_size > len(letter.payload or b""),
        history=history_in(letter.headers),
    )
    return shown, letter


def letter_id(letter: DeadLetter) -> str:
    """20 hexadecimal digits that name the letter.

    They follow from where the event stood and what it was, not from when it failed: a worker with at-least-once
    delivery may write a letter twice, and both copies are one letter.
    """
    source = letter.source
    parts = [source.topic, source.partition, source.offset, source.index, letter.event_id, letter.payload_size]
    payload = hashlib.sha256(letter.payload or b"").hexdigest()
    return hashlib.sha256(json.dumps([*parts, payload]).encode()).hexdigest()[:20]


def history_in(headers: Iterable[tuple[str, bytes | None]]) -> tuple[Redrive, ...]:
    """The redrives recorded in the headers, oldest first. Senders can write headers too, so invalid ones are
    skipped.
    """
    found: list[Redrive] = []
    for name, value in headers:
        if name == HISTORY_HEADER:
            try:
                found.append(Redrive.model_validate_json(value or b""))
            except ValidationError:
                continue
    return tuple(found[-HISTORY_LENGTH:])


def _tenant_in(letter: DeadLetter) -> str | None:
    """The tenant of a letter that was written before letters named it."""
    if letter.event_id.startswith(NO_EVENT) or letter.payload is None:
        return None
    try:
        events = parse(Record(Partition("", 0), 0, letter.payload, None, letter.headers)).events
    except MalformedRecord:
        return None
    return next((event.tenant for event in events if event.id == letter.event_id), None)
