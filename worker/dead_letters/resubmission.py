"""From a dead letter to the record that submits its event again."""

from datetime import datetime

from schemas import DeadLetter
from worker.dead_letters.letter import HISTORY_HEADER, HISTORY_LENGTH, NO_EVENT, Letter, Redrive
from worker.intake.log import Output, Partition, Record
from worker.intake.parse import MalformedRecord, parse


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
    value = _value(letter, whole, original)
    foreign = [(name, part or b"") for name, part in whole.headers if name != HISTORY_HEADER]
    if not whole.event_id.startswith(NO_EVENT):
        value = _event(whole, value)
        # The value is plain now: what told how to read it would mislead.
        foreign = [(name, part) for name, part in foreign if not _describes_value(name)]
    if len(value) > max_bytes:
        raise CannotRedrive(f"the record has {len(value):,} bytes, and a worker reads at most {max_bytes:,}")
    entry = Redrive(
        letter_id=letter.letter_id, failed_at=letter.failed_at, reason=letter.reason, redriven_at=at, actor=actor
    )
    history = [*letter.history, entry][-HISTORY_LENGTH:]
    # First, so that they are kept when a letter keeps only the first headers.
    ours = [(HISTORY_HEADER, each.model_dump_json().encode()) for each in history]
    return Output(topic, value, whole.key, (*ours, *foreign))


def _value(letter: Letter, whole: DeadLetter, original: Record | None) -> bytes:
    if whole.payload is None:
        raise CannotRedrive("its record has no value: there is nothing to submit")
    if not letter.is_cut:
        return whole.payload
    source = letter.source
    place = f"{source.topic}/{source.partition}@{source.offset}"
    if original is None or original.value is None:
        raise CannotRedrive(f"the letter holds only a part of its record, and {place} is kept no more")
    if len(original.value) != whole.payload_size or not original.value.startswith(whole.payload):
        raise CannotRedrive(f"the letter holds only a part of its record, and {place} is another record now")
    return original.value


def _event(whole: DeadLetter, value: bytes) -> bytes:
    """The letter's own event as JSON."""
    source = whole.source
    try:
        events = parse(Record(Partition(source.topic, source.partition), source.offset, value, None, whole.headers))
        event = events.events[source.index]
    except (MalformedRecord, IndexError) as error:
        raise CannotRedrive("this version of Sluice no longer finds the event in its record") from error
    if event.id != whole.event_id:
        raise CannotRedrive(f"the record now holds event {event.id} at this place")
    return event.model_dump_json(by_alias=True, exclude_none=True).encode()


def _describes_value(header: str) -> bool:
    lowered = header.lower()
    return lowered == "content-type" or lowered.startswith("ce_")
