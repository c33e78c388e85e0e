"""From a record to image events.

A record's value is JSON, and one of
- a `sluice.image-event/1`,
- a notification of an object store (worker.intake.notifications),
- a CloudEvent 1.0 that carries either as its data, in Kafka's structured mode (the whole in the value, content-type
  `application/cloudevents+json`; the header may be missing) or binary mode (`ce_` headers, the data in the value),
- a list of CloudEvents, as Azure Event Grid batches them.
A serializer of a schema registry may have framed any of them.
SeaweedFS (4.48) writes no S3 notifications; what its filer publishes is protobuf, and is refused as no JSON.

The CloudEvents envelope is read here and not by the `cloudevents` library, because that invents a random id and the
present time where they are missing (the same record would be another event at each redelivery) and parses with `json`,
which a deeply nested value takes to a RecursionError.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import AwareDatetime, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from schemas import Base64Data, FailureReason, ImageEvent
from schemas.explain import excerpt, one_line, problems
from worker.intake.log import Record
from worker.intake.notifications import (
    DIALECTS,
    MAX_NOTIFICATION_RECORDS,
    Foreign,
    MalformedRecord,
    Parsed,
    Text,
    derived_id,
    malformed,
    read_cloud_event,
    read_notification,
)
from worker.intake.schema_frames import read_frame

__all__ = [
    "MAX_COLONS",
    "MAX_NOTIFICATION_RECORDS",
    "MAX_VALUE_BYTES",
    "MalformedRecord",
    "Parsed",
    "canonical",
    "describes_value",
    "parse",
]

MAX_VALUE_BYTES = 16 * 1024 * 1024
"""A larger value is refused before it is parsed."""
MAX_COLONS = 100_000
"""A hundred for each object of the largest notification; JSON has one for each key."""

# By itself, as validation through the model's method takes a fifth longer.
_validate_event = TypeAdapter(ImageEvent).validator.validate_json
_EVENT_KEYS = tuple(field.alias or name for name, field in ImageEvent.model_fields.items())
_OURS = frozenset({"schema", "schema_", "id", "occurred_at", "image"})
"""What tells a faulty image event from a message of somebody else."""
_CONTENT_TYPE = "content-type"
_STRUCTURED = "application/cloudevents"


def parse(record: Record, *, max_bytes: int = MAX_VALUE_BYTES) -> Parsed:
    """The image events that a record announces. Raises MalformedRecord, and nothing else, whatever the bytes are."""
    value = record.value
    if value is None:
        raise MalformedRecord(
            FailureReason.TOMBSTONE,
            "the record has no value, which marks its key as deleted; expected an image event in JSON",
        )
    if len(value) > max_bytes:
        message = f"the value has {len(value)} bytes; at most {max_bytes} are read"
        raise MalformedRecord(FailureReason.EVENT_TOO_LARGE, message)
    # Problems are reported key by key; for a million keys that would take long enough to stop the stream.
    if len(value) > MAX_COLONS and value.count(b":") > MAX_COLONS:
        message = f"the value has more than {MAX_COLONS} colons, too many for an image event or a notification"
        raise MalformedRecord(FailureReason.EVENT_TOO_LARGE, message)
    value = _unframed(value)
    if not record.headers:
        return _parse_data(value, None)
    headers = _lowered(record.headers)
    if headers.get(_CONTENT_TYPE, "").lower().startswith(_STRUCTURED):
        return _parse_structured(value, headers[_CONTENT_TYPE])
    if "ce_specversion" in headers:
        return _parse_data(value, _binary_envelope(headers))
    return _parse_data(value, None)


def canonical(event: ImageEvent) -> bytes:
    """The event as the value of a record that carries only it, whatever record it came in."""
    return event.model_dump_json(by_alias=True, exclude_none=True).encode()


def describes_value(header: str) -> bool:
    """Whether a record's header says how to read its value. A record that passes the event on must not have it."""
    lowered = header.lower()
    return lowered == _CONTENT_TYPE or lowered.startswith("ce_")


def _unframed(value: bytes) -> bytes:
    """The data of a value that a serializer of a schema registry has framed. Avro was made JSON before, where that can
    be done (worker.intake.framed_records)."""
    frame = read_frame(value)
    if frame is None:
        return value
    if not frame.is_json:
        raise malformed(
            f"the value is framed by a schema registry (schema {frame.schema_id}) and is no JSON: it does not fit its "
            "Avro schema, the registry does not give that schema, or kafka.schema_registry is not set"
        )
    return frame.data


class _Envelope(Foreign):
    """A CloudEvent 1.0, apart from the data of binary mode."""

    specversion: Literal["1.0"]
    id: Text
    source: Text
    type: Text
    time: AwareDatetime | None = None
    datacontenttype: str | None = None
    data: Any = None
    data_base64: Base64Data | None = None


def _lowered(headers: tuple[tuple[str, bytes | None], ...]) -> dict[str, str]:
    """The headers that say how to read the value, by lower-case name."""
    found: dict[str, str] = {}
    for name, value in headers:
        if not describes_value(name):
            continue
        lowered = name.lower()
        if lowered in found:
            raise malformed(f"header {excerpt(lowered)} appears twice; expected one")
        try:
            found[lowered] = (value or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise malformed(f"header {excerpt(lowered)}: expected UTF-8, got {excerpt(value)}") from None
    return found


def _parse_structured(value: bytes, content_type: str) -> Parsed:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != f"{_STRUCTURED}+json":
        raise malformed(f"header content-type: expected {_STRUCTURED}+json, got {excerpt(content_type)}")
    return _parse_enveloped(_envelope(value))


def _parse_enveloped(envelope: _Envelope) -> Parsed:
    if envelope.data is not None and envelope.data_base64 is not None:
        raise malformed("CloudEvent: has both data and data_base64; expected one of them")
    if envelope.data_base64 is not None:
        return _parse_data(envelope.data_base64, envelope)
    if envelope.data is None:
        raise malformed("CloudEvent: data is missing; expected an image event or a notification")
    return _parse_data(to_json(envelope.data), envelope)


def _binary_envelope(headers: Mapping[str, str]) -> _Envelope:
    attributes = {name.removeprefix("ce_"): text for name, text in headers.items() if name.startswith("ce_")}
    # In binary mode the value is the data, so attributes of these names are extensions gone astray.
    attributes.pop("data", None)
    attributes.pop("data_base64", None)
    if _CONTENT_TYPE in headers:
        attributes["datacontenttype"] = headers[_CONTENT_TYPE]
    return _envelope(to_json(attributes))


def _envelope(value: bytes) -> _Envelope:
    try:
        envelope = _Envelope.model_validate_json(value)
    except ValidationError as error:
        raise malformed(f"CloudEvent: {one_line(problems(error))}") from None
    media_type = (envelope.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise malformed(
            f"CloudEvent: datacontenttype: expected application/json, got {excerpt(envelope.datacontenttype)}"
        )
    return envelope


def _parse_data(value: bytes, envelope: _Envelope | None) -> Parsed:
    """The events of plain JSON. The common case, one whole image event, is read in a single pass."""
    try:
        return Parsed((_image_event(value),))
    except ValidationError as error:
        refusal = error
    try:
        document = from_json(value)
    except ValueError:
        raise malformed(f"the value is {one_line(problems(refusal))}") from None
    if envelope is None and isinstance(document, list) and document:
        return _parse_batch(document)
    if not isinstance(document, dict):
        raise malformed(f"the value is not a JSON object; expected {DIALECTS}")
    if envelope is None and "specversion" in document and "schema" not in document:
        return _parse_enveloped(_envelope(value))
    if envelope is None:
        found = read_notification(document)
    else:
        found = read_cloud_event(envelope.type, envelope.time, document)
    if found is not None:
        return found
    if envelope is not None and ("id" not in document or "occurred_at" not in document):
        try:
            return Parsed((_image_event(to_json(_completed(document, envelope))),))
        except ValidationError as error:
            refusal = error
    if not document.keys() & _OURS:
        raise malformed(f"the value has none of the shapes that are known; expected {DIALECTS}")
    raise malformed(f"image event: {one_line(problems(refusal, known=_EVENT_KEYS))}")


def _parse_batch(documents: list[Any]) -> Parsed:
    if len(documents) > MAX_NOTIFICATION_RECORDS:
        raise malformed(f"a batch of {len(documents)} CloudEvents; expected at most {MAX_NOTIFICATION_RECORDS}")
    parts = [_parse_enveloped(_envelope(to_json(document))) for document in documents]
    return Parsed(tuple(event for part in parts for event in part.events), sum(part.ignored for part in parts))


def _image_event(value: bytes) -> ImageEvent:
    event: ImageEvent = _validate_event(value, strict=True, by_alias=True, by_name=False)
    if "schema_" not in event.model_fields_set:
        raise malformed("image event: schema: is missing; expected 'sluice.image-event/1'")
    return event


def _completed(document: dict[str, Any], envelope: _Envelope) -> dict[str, Any]:
    """The image event with what only its envelope tells. Source and id together name a CloudEvent."""
    identity = {"id": derived_id("ce", envelope.source, envelope.id)}
    return identity | ({"occurred_at": envelope.time} if envelope.time else {}) | document
