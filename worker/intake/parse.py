"""From a record to image events.

A record's value is one of
- a `sluice.image-event/1` in JSON,
- an S3 event notification in JSON, as AWS, MinIO and Ceph write them: `{"Records": [...]}`, several objects in one,
- a CloudEvent 1.0 that carries either as its data, in Kafka's structured mode (the whole in the value, content-type
  `application/cloudevents+json`) or binary mode (`ce_` headers, the data in the value).
SeaweedFS (4.48) writes no S3 notifications; what its filer publishes is protobuf, and is refused as no JSON.

The CloudEvents envelope is read here and not by the `cloudevents` library, because that invents a random id and the
present time where they are missing (the same record would be another event at each redelivery) and parses with `json`,
which a deeply nested value takes to a RecursionError.
"""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import unquote_plus

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from schemas import Base64Data, FailureReason, ImageEvent, S3Reference
from schemas.explain import DocumentProblem, excerpt, one_line, problems
from worker.intake.log import Record

MAX_VALUE_BYTES = 16 * 1024 * 1024
"""A larger value is refused before it is parsed."""
MAX_COLONS = 100_000
"""A hundred for each object of the largest notification; JSON has one for each key."""
MAX_NOTIFICATION_RECORDS = 1000
"""So many objects in one S3 notification; more would let one record outgrow the intake's window."""

# By itself, as validation through the model's method takes a fifth longer.
_validate_event = TypeAdapter(ImageEvent).validator.validate_json
_EVENT_KEYS = tuple(field.alias or name for name, field in ImageEvent.model_fields.items())
_CONTENT_TYPE = "content-type"
_STRUCTURED = "application/cloudevents"
_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class MalformedRecord(Exception):
    """The record announces nothing that can be judged. Trying again cannot help."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class Parsed(NamedTuple):
    """The events of one record, in its order; `ignored` counts notifications of other things than a new object."""

    events: tuple[ImageEvent, ...]
    ignored: int = 0


def parse(record: Record, *, max_bytes: int = MAX_VALUE_BYTES) -> Parsed:
    """The image events that a record announces. Raises MalformedRecord, and nothing else, whatever the bytes are."""
    value = record.value
    if value is None:
        raise _malformed("the record has no value; expected an image event in JSON")
    if len(value) > max_bytes:
        message = f"the value has {len(value)} bytes; at most {max_bytes} are read"
        raise MalformedRecord(FailureReason.EVENT_TOO_LARGE, message)
    # Problems are told key by key: of a million keys that would take long enough to stop the stream.
    if len(value) > MAX_COLONS and value.count(b":") > MAX_COLONS:
        message = f"the value has more than {MAX_COLONS} colons, too many for an image event or a notification"
        raise MalformedRecord(FailureReason.EVENT_TOO_LARGE, message)
    if not record.headers:
        return _parse_data(value, None)
    headers = _lowered(record.headers)
    if headers.get(_CONTENT_TYPE, "").lower().startswith(_STRUCTURED):
        return _parse_structured(value, headers[_CONTENT_TYPE])
    if "ce_specversion" in headers:
        return _parse_data(value, _binary_envelope(headers))
    return _parse_data(value, None)


class _Foreign(BaseModel):
    """A message whose shape is somebody else's: what we do not read may be anything."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Envelope(_Foreign):
    """A CloudEvent 1.0, apart from the data of binary mode."""

    specversion: Literal["1.0"]
    id: _Text
    source: _Text
    type: _Text
    time: AwareDatetime | None = None
    datacontenttype: str | None = None
    data: Any = None
    data_base64: Base64Data | None = None


class _Bucket(_Foreign):
    name: str


class _Object(_Foreign):
    key: _Text
    size: int | None = None
    etag: str | None = Field(None, alias="eTag")
    version_id: str | None = Field(None, alias="versionId")
    sequencer: str | None = None
    content_type: str | None = Field(None, alias="contentType")


class _S3(_Foreign):
    bucket: _Bucket
    object: _Object


class _Created(_Foreign):
    """A record of an S3 notification that tells of a new object."""

    event_time: AwareDatetime = Field(alias="eventTime")
    s3: _S3


def _lowered(headers: tuple[tuple[str, bytes | None], ...]) -> dict[str, str]:
    """The headers that say how to read the value, by lower-case name."""
    found: dict[str, str] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered != _CONTENT_TYPE and not lowered.startswith("ce_"):
            continue
        if lowered in found:
            raise _malformed(f"header {excerpt(lowered)} appears twice; expected one")
        try:
            found[lowered] = (value or b"").decode("utf-8")
        except UnicodeDecodeError:
            raise _malformed(f"header {excerpt(lowered)}: expected UTF-8, got {excerpt(value)}") from None
    return found


def _parse_structured(value: bytes, content_type: str) -> Parsed:
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type != f"{_STRUCTURED}+json":
        raise _malformed(f"header content-type: expected {_STRUCTURED}+json, got {excerpt(content_type)}")
    envelope = _envelope(value)
    if envelope.data is not None and envelope.data_base64 is not None:
        raise _malformed("CloudEvent: has both data and data_base64; expected one of them")
    if envelope.data_base64 is not None:
        return _parse_data(envelope.data_base64, envelope)
    if envelope.data is None:
        raise _malformed("CloudEvent: data is missing; expected an image event or an S3 notification")
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
        raise _malformed(f"CloudEvent: {one_line(problems(error))}") from None
    media_type = (envelope.datacontenttype or "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise _malformed(
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
        raise _malformed(f"the value is {one_line(problems(refusal))}") from None
    if not isinstance(document, dict):
        raise _malformed("the value is not a JSON object; expected an image event or an S3 notification")
    if "schema" not in document and ("Records" in document or document.get("Event") == "s3:TestEvent"):
        return _parse_notification(document)
    if envelope is not None and "s3" in document and "eventName" in document:
        return _parse_notification({"Records": [document]})
    if envelope is not None and ("id" not in document or "occurred_at" not in document):
        try:
            return Parsed((_image_event(to_json(_completed(document, envelope))),))
        except ValidationError as error:
            refusal = error
    raise _malformed(f"image event: {one_line(problems(refusal, known=_EVENT_KEYS))}")


def _image_event(value: bytes) -> ImageEvent:
    event: ImageEvent = _validate_event(value, strict=True, by_alias=True, by_name=False)
    if "schema_" not in event.model_fields_set:
        raise _malformed("image event: schema: is missing; expected 'sluice.image-event/1'")
    return event


def _completed(document: dict[str, Any], envelope: _Envelope) -> dict[str, Any]:
    """The image event with what only its envelope tells. Source and id together name a CloudEvent."""
    identity = {"id": _derived_id("ce", envelope.source, envelope.id)}
    return identity | ({"occurred_at": envelope.time} if envelope.time else {}) | document


def _parse_notification(document: dict[str, Any]) -> Parsed:
    if "Records" not in document:
        return Parsed((), ignored=1)
    records = document["Records"]
    if not isinstance(records, list) or not 1 <= len(records) <= MAX_NOTIFICATION_RECORDS:
        expected = f"a list of 1 to {MAX_NOTIFICATION_RECORDS}"
        got = f"{len(records)} entries" if isinstance(records, list) else excerpt(type(records).__name__)
        raise _malformed(f"S3 notification: Records: expected {expected}, got {got}")
    events = [event for index, record in enumerate(records) if (event := _from_notification(record, index))]
    return Parsed(tuple(events), ignored=len(records) - len(events))


def _from_notification(record: Any, index: int) -> ImageEvent | None:
    """The event of one record; None when it tells of something else than a new object."""
    name = record.get("eventName") if isinstance(record, dict) else None
    if not isinstance(name, str):
        raise _malformed(f"S3 notification: Records[{index}].eventName: expected text, such as ObjectCreated:Put")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    try:
        created = _Created.model_validate(record)
        found = created.s3.object
        key = unquote_plus(found.key, errors="strict")
        if key.endswith("/") and not found.size:
            return None  # a folder, as consoles make them
        reference = S3Reference(
            bucket=created.s3.bucket.name,
            key=key,
            version_id=None if found.version_id in ("", "null") else found.version_id,
            etag=(found.etag or "").strip('"') or None,
        )
        return ImageEvent(
            id=_object_event_id(reference, found.sequencer or created.event_time.isoformat()),
            occurred_at=created.event_time,
            image=reference,
            content_type=found.content_type or None,
        )
    except ValidationError as error:
        below = [DocumentProblem(("Records", index, *problem.path), problem.text) for problem in problems(error)]
        raise _malformed(f"S3 notification: {one_line(below)}") from None
    except UnicodeDecodeError:
        where = f"Records[{index}].s3.object.key"
        raise _malformed(f"S3 notification: {where}: expected UTF-8, URL-encoded, got {excerpt(found.key)}") from None


def _object_event_id(reference: S3Reference, sequencer: str) -> str:
    """The same for each delivery of one notification, another for each write of the object."""
    if reference.version_id is not None:
        return _derived_id("s3", reference.bucket, reference.key, reference.version_id)
    return _derived_id("s3", reference.bucket, reference.key, reference.etag or "", sequencer)


def _derived_id(kind: str, *parts: str) -> str:
    """An id of bounded length; the parts go through JSON, so that no two lists of parts run together."""
    return f"{kind}-{hashlib.sha256(to_json(parts)).hexdigest()}"


def _malformed(message: str) -> MalformedRecord:
    return MalformedRecord(FailureReason.MALFORMED_EVENT, message)
