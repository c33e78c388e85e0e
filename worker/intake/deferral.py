"""Deferred events: moved to a retry or surplus topic, where they do not block others, and judged later.

A member finishes the record that an event came in with an output for the other topic. Output and offset are one commit,
so the event is neither lost nor doubled. The new record carries the one event in its canonical form, under the key of
the record it came from, and says in a header where it first stood, when, and what was tried. The verdict, the dead
letter and the review item of a deferred event name that first place, however often it was moved.
"""

from typing import Annotated, Final

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schemas import ImageEvent, Source
from worker.intake import packs
from worker.intake.log import Output, Record
from worker.intake.parse import canonical, describes_value

log = structlog.get_logger(__name__)

HEADER: Final = "sluice-deferred"
"""Its value is a Deferral as JSON. It counts only on records of topics that nobody but Sluice writes."""
_OURS: Final = frozenset({HEADER, packs.HEADER})
"""Headers of these names that a sender has given are dropped."""

Milliseconds = Annotated[int, Field(ge=0)]
"""Since 1970, by the clock of whoever wrote it."""


class Deferral(BaseModel):
    """What is known of an event that was moved."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    source: Source
    """Where the event first stood."""
    first_seen_ms: Milliseconds
    """When it came there, by the log's time."""
    due_ms: Milliseconds = 0
    """It is not judged before then."""
    reason: str = ""
    """Why it was moved last, for people."""
    retries: Annotated[int, Field(ge=0)] = 0
    """How often it was moved into a retry topic."""
    attempts: Annotated[int, Field(ge=0)] = 0
    """Fetches that failed and count against `intake.max_attempts`."""
    first_failed_ms: Milliseconds | None = None
    probes: Annotated[int, Field(ge=0)] = 0
    """Fetches that failed while the store was down, since `probed_since_ms`."""
    probed_since_ms: Milliseconds | None = None


def deferred_output(record: Record, event: ImageEvent, deferral: Deferral, topic: str) -> Output:
    """The record that moves `event`, one of those that `record` carries, to `topic`."""
    others = [(name, value or b"") for name, value in record.headers if name not in _OURS and not describes_value(name)]
    ours = (HEADER, deferral.model_dump_json(exclude_none=True).encode())
    return Output(topic, canonical(event), record.key, (ours, *others))


def deferred_whole(record: Record, topic: str, *, first_seen_ms: int, reason: str) -> Output:
    """The record that moves all of `record`, which carries one event, has no headers and was not moved before, as it
    is. It is written without the models, in a tenth of the time: a tenant may send a hundred thousand at once."""
    (name, number), offset = record.partition, record.offset
    source = f'{{"topic":"{name}","partition":{number},"offset":{offset},"index":0}}'
    header = f'{{"source":{source},"first_seen_ms":{first_seen_ms},"reason":"{reason}"}}'
    return Output(topic, record.value or b"", record.key, ((HEADER, header.encode()),))


def read_deferral(record: Record) -> Deferral | None:
    """What a record of one of our topics says of its event.

    None where it says nothing, or not as we do: the record is then judged at once, as one that first came there.
    """
    written = [value for name, value in record.headers if name == HEADER]
    try:
        return Deferral.model_validate_json(written[0] or b"") if written else None
    except ValidationError as error:
        where = f"{record.partition.topic}/{record.partition.number}@{record.offset}"
        log.warning("deferral_unreadable", record=where, header=HEADER, error=str(error)[:500])
        return None
