"""Why an event could not be judged."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import AfterValidator

from schemas.base import Contract

MESSAGE_CHARACTERS: Final = 8000
"""Of a failure's message at most; longer ones are cut."""


class FailureReason(StrEnum):
    """The ways in which an event can fail. A closed set: it is a label of metrics and dead letters."""

    MALFORMED_EVENT = "malformed_event"
    """The record is not JSON, or not an event of a known schema."""
    TOMBSTONE = "tombstone"
    """The record has no value: it announces no image, but marks its key as deleted."""
    EVENT_TOO_LARGE = "event_too_large"
    REFERENCE_REFUSED = "reference_refused"
    """The reference points where this worker may not read: a private address, a file outside the roots."""
    IMAGE_NOT_FOUND = "image_not_found"
    ACCESS_DENIED = "access_denied"
    IMAGE_TOO_LARGE = "image_too_large"
    """More bytes or pixels than the limits allow; a decompression bomb."""
    UNSUPPORTED_FORMAT = "unsupported_format"
    """Not an image of a known type, judged by content."""
    UNDECODABLE_IMAGE = "undecodable_image"
    """Of a known type, but damaged."""
    TRUNCATED_IMAGE = "truncated_image"
    """Of a known type, but a part of the picture is missing."""
    HASH_MISMATCH = "hash_mismatch"
    """The bytes are not those that the event's sha256 or the reference's etag promised."""
    FETCH_FAILED = "fetch_failed"
    """Transient faults until attempts or the deadline ran out."""
    ENGINE_FAILED = "engine_failed"
    """The engine could not judge this image, alone, again."""
    CRASHED_WORKER = "crashed_worker"
    """The worker's process died twice while it judged this image, alone."""
    INTERNAL_ERROR = "internal_error"
    """An internal error that no other reason describes. Please report it."""
    POLICY_FAILED = "policy_failed"
    """A rule could not be evaluated for this event."""


def _bounded(message: str) -> str:
    """Cuts the message, which may repeat text of a store or a library."""
    return message if len(message) <= MESSAGE_CHARACTERS else f"{message[: MESSAGE_CHARACTERS - 1]}…"


class Failure(Contract):
    """A reason for machines and a message for people: what was wrong, where, and what to do."""

    reason: FailureReason
    message: Annotated[str, AfterValidator(_bounded)]
    attempts: int = 1
