"""A record that could not be judged, kept whole: `sluice.dead-letter/1`."""

from typing import Literal

from pydantic import Field

from schemas.base import Base64Data, Contract, Identifier, Timestamp
from schemas.failure import Failure
from schemas.verdict import Source


class DeadLetter(Contract):
    """The raw record with the reason. `payload` is the record's value as it came; where it would not fit into a message
    it is cut, `payload_size` tells its true size, and `source` is where to read the rest.
    """

    schema_: Literal["sluice.dead-letter/1"] = Field(default="sluice.dead-letter/1", alias="schema")
    event_id: Identifier
    verdict_id: Identifier
    failed_at: Timestamp
    failure: Failure
    source: Source
    key: Base64Data | None = None
    headers: tuple[tuple[str, Base64Data | None], ...] = ()
    payload: Base64Data | None
    payload_size: int
