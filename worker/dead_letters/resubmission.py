"""From a dead letter to the record that submits its event again."""

from datetime import datetime

from schemas import DeadLetter
from worker.dead_letters.letter import HISTORY_HEADER, HISTORY_LENGTH, NO_EVENT, Letter, Redrive
from worker.intake.deferral import HEADER as DEFERRED
from worker.intake.log import Output, Partition, Record
from worker.intake.parse import MalformedRecord, canonical, describes_value, parse


class CannotRedrive(Exception):
    """This letter cannot be redriven; the message says why."""


def resubmission(
    letter: Letter, whole: DeadLetter, original: Record | None, *, topic: str, actor: str, at: datetime, max_bytes: int
) -> Output:
    """The record that submits the letter's event again, to `topic`, with the history in its headers.

    A record may announce several events, of which others were judged: only the letter's own event is submitted. A
    record that holds no event is submitted as it came, for a worker that may read it by now. `original` is the record
    that the letter is about, needed only where the letter is cut. Raises CannotRedrive.
    """
    foreign = [(name, part or b"") for name, part in whole.headers if name not in (HISTORY_HEADER, DEFERRED)]
    if whole.event_id.startswith(NO_EVENT):
        value = _record_of(letter, whole, original).value or b""
    else:
        value = _event(whole, _record_of(letter, whole, original))
        # The value is plain now: what told how to read it would mislead.
        foreign = [(name, part) for name, part in foreign if not describes_value(name)]
    if len(value) > max_bytes:
        raise CannotRedrive(f"the record has {len(value):,} bytes, and a worker reads at most {max_bytes:,}")
    entry = Redrive(
        letter_id=letter.letter_id, failed_at=letter.failed_at, reason=letter.reason, redriven_at=at, actor=actor
    )
    history = [*letter.history, entry][-HISTORY_LENGTH:]
    # First, so that they are kept when a letter keeps only the first headers.
    ours = [(HISTORY_HEADER, each.model_dump_json().encode()) for each in history]
    return Output(topic, value, whole.key, (*ours, *foreign))


def _record_of(letter: Letter, whole: DeadLetter, original: Record | None) -> Record:
    """The record that the letter's event is in, whole."""
    if whole.payload is None:
        raise CannotRedrive("its record has no value: there is nothing to submit")
    source = letter.source
    if not letter.is_cut:
        return Record(Partition(source.topic, source.partition), source.offset, whole.payload, None, whole.headers)
    place = f"{source.topic}/{source.partition}@{source.offset}"
    if original is None or original.value is None:
        raise CannotRedrive(f"the letter holds only part of its record, and {place} no longer exists")
    # A deferred event failed in a record of its own, and not in the one in which it came.
    was_deferred = any(name == DEFERRED for name, _ in whole.headers)
    is_same = len(original.value) == whole.payload_size and original.value.startswith(whole.payload)
    if not (is_same or was_deferred):
        raise CannotRedrive(f"the letter holds only part of its record, and {place} is a different record now")
    return original


def _event(whole: DeadLetter, record: Record) -> bytes:
    """The letter's own event as JSON."""
    index = whole.source.index
    try:
        events = parse(record).events
    except MalformedRecord as error:
        raise CannotRedrive("this version of Sluice no longer finds the event in its record") from error
    for event in (*events[index : index + 1], *events):
        if event.id == whole.event_id:
            return canonical(event)
    raise CannotRedrive(f"the record no longer holds event {whole.event_id}")
