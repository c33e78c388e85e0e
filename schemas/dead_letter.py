"""A record that could not be judged, kept whole, and what people did about it."""

from typing import Annotated, Literal

from pydantic import Field

from schemas.base import Base64Data, Contract, Identifier, Name, Timestamp
from schemas.failure import Failure
from schemas.verdict import Source


class DeadLetter(Contract):
    """The raw record with the reason. `payload` is the record's value as it came; where it would not fit into a message
    it is cut, `payload_size` tells its true size, and `source` is where to read the rest. `tenant` is absent where the
    record holds no event.
    """

    schema_: Literal["sluice.dead-letter/1"] = Field(default="sluice.dead-letter/1", alias="schema")
    event_id: Identifier
    verdict_id: Identifier
    tenant: Name | None = None
    failed_at: Timestamp
    failure: Failure
    source: Source
    key: Base64Data | None = None
    headers: tuple[tuple[str, Base64Data | None], ...] = ()
    payload: Base64Data | None
    payload_size: int


class DeadLetterAction(Contract):
    """Somebody redrove or dropped a dead letter. The key is `letter_id`; the newest action on a letter counts.

    `redrive`: its event was submitted again, in the same transaction as this record. `drop`: nobody will submit it
    again, for the `reason` given; the letter stays in its topic, and the event's verdict and review item stand.
    `run` is the same for all actions of one command or request.
    """

    schema_: Literal["sluice.dead-letter-action/1"] = Field(default="sluice.dead-letter-action/1", alias="schema")
    letter_id: Identifier
    event_id: Identifier
    action: Literal["redrive", "drop"]
    at: Timestamp
    actor: Identifier
    reason: Annotated[str, Field(max_length=1000)]
    run: Identifier
