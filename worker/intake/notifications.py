"""From what object stores announce to image events.

| dialect | recognised by |
|---|---|
| S3 (AWS, MinIO, Ceph) | `Records`, each with `eventName` and `s3` |
| S3 in SNS | `Type: Notification` and a `Message` |
| S3 by EventBridge | `source: aws.s3` and `detail` |
| Cloudflare R2 | `action`, `bucket` and `object` |
| Google Cloud Storage | a CloudEvent of a type `google.cloud.storage.object.v1.…` |
| Azure Blob Storage | a CloudEvent of a type `Microsoft.Storage.…` |

The shapes are those of the vendors' documentation; docs/events.md tells how to set each up.
"""

import base64
import binascii
import hashlib
from datetime import datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote_plus

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from pydantic_core import from_json, to_json

from schemas import FailureReason, HttpReference, ImageEvent, S3Reference
from schemas.explain import DocumentProblem, excerpt, one_line, problems

MAX_NOTIFICATION_RECORDS = 1000
"""So many objects in one S3 notification; more would let one record outgrow the intake's window."""
DIALECTS = (
    "an image event (schema: sluice.image-event/1), an S3 notification (AWS, MinIO, Ceph; plain, in SNS, or by "
    "EventBridge), a Cloudflare R2 notification, or a CloudEvent of Google Cloud Storage or Azure Blob Storage"
)
GOOGLE = "google.cloud.storage.object.v1."
AZURE = "Microsoft.Storage."

_RAW_KEYS = "ceph:"
"""Stores whose `eventSource` begins so write keys as they are; all others encode them as in a URL's query."""
_ENCODED_KEYS = ("aws:", "minio:", "seaweedfs:")
_R2_CREATED = frozenset({"PutObject", "CopyObject", "CompleteMultipartUpload"})

Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


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


class Foreign(BaseModel):
    """A message whose shape is somebody else's: what we do not read may be anything."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Bucket(Foreign):
    name: str


class _Object(Foreign):
    key: Text
    size: int | None = None
    etag: str | None = Field(None, alias="eTag")
    version_id: str | None = Field(None, alias="versionId")
    sequencer: str | None = None
    content_type: str | None = Field(None, alias="contentType")


class _S3(Foreign):
    bucket: _Bucket
    object: _Object


class _Created(Foreign):
    """A record of an S3 notification about a new object."""

    source: str = Field("", alias="eventSource")
    time: AwareDatetime = Field(alias="eventTime")
    s3: _S3


class _BridgeObject(Foreign):
    key: Text
    size: int | None = None
    etag: str | None = None
    version_id: str | None = Field(None, alias="version-id")
    sequencer: str | None = None


class _BridgeDetail(Foreign):
    bucket: _Bucket
    object: _BridgeObject


class _Bridge(Foreign):
    """An event of S3 as EventBridge delivers it. Its keys are not encoded."""

    time: AwareDatetime
    detail: _BridgeDetail


class _R2Object(Foreign):
    key: Text
    size: int | None = None
    etag: str | None = Field(None, alias="eTag")


class _R2(Foreign):
    bucket: Text
    object: _R2Object
    time: AwareDatetime = Field(alias="eventTime")


class _GoogleObject(Foreign):
    bucket: Text
    name: Text
    generation: str | int | None = None
    size: int | None = None
    content_type: str | None = Field(None, alias="contentType")
    md5: str | None = Field(None, alias="md5Hash")
    created: AwareDatetime | None = Field(None, alias="timeCreated")


class _AzureBlob(Foreign):
    url: Text
    etag: str | None = Field(None, alias="eTag")
    content_type: str | None = Field(None, alias="contentType")
    size: int | None = Field(None, alias="contentLength")
    sequencer: str | None = None


def read_notification(document: dict[str, Any]) -> Parsed | None:
    """The events of a notification that needs no CloudEvent around it; None for another document. Raises
    MalformedRecord."""
    if "schema" in document:
        return None
    if "Records" in document or document.get("Event") == "s3:TestEvent":
        return _from_s3(document)
    if isinstance(document.get("Type"), str) and "TopicArn" in document:
        return _from_sns(document)
    if document.get("source") == "aws.s3" and "detail-type" in document:
        return _from_event_bridge(document)
    if isinstance(document.get("action"), str) and "bucket" in document and "object" in document:
        return _from_r2(document)
    return None


def read_cloud_event(kind: str, time: datetime | None, document: dict[str, Any]) -> Parsed | None:
    """The events of what a CloudEvent of this type carries; None where that is no notification. Raises
    MalformedRecord."""
    if kind.startswith(GOOGLE):
        return _from_google(kind, time, document)
    if kind.startswith(AZURE):
        return _from_azure(kind, time, document)
    if "s3" in document and "eventName" in document:
        return _from_s3({"Records": [document]})
    return read_notification(document)


def _from_s3(document: dict[str, Any]) -> Parsed:
    if "Records" not in document:
        return Parsed((), ignored=1)
    records = document["Records"]
    if not isinstance(records, list) or not 1 <= len(records) <= MAX_NOTIFICATION_RECORDS:
        expected = f"a list of 1 to {MAX_NOTIFICATION_RECORDS}"
        got = f"{len(records)} entries" if isinstance(records, list) else excerpt(type(records).__name__)
        raise malformed(f"S3 notification: Records: expected {expected}, got {got}")
    events = [event for index, record in enumerate(records) if (event := _from_s3_record(record, index))]
    return Parsed(tuple(events), ignored=len(records) - len(events))


def _from_s3_record(record: Any, index: int) -> ImageEvent | None:
    """The event of one record; None if it is not about a new object."""
    name = record.get("eventName") if isinstance(record, dict) else None
    if not isinstance(name, str):
        raise malformed(f"S3 notification: Records[{index}].eventName: expected text, such as ObjectCreated:Put")
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    try:
        created = _Created.model_validate(record)
        found = created.s3.object
        return _object_event(
            created.s3.bucket.name,
            _key(created, index),
            time=created.time,
            size=found.size,
            etag=found.etag,
            version_id=found.version_id,
            sequencer=found.sequencer,
            content_type=found.content_type,
        )
    except ValidationError as error:
        below = [DocumentProblem(("Records", index, *problem.path), problem.text) for problem in problems(error)]
        raise malformed(f"S3 notification: {one_line(below)}") from None


def _key(created: _Created, index: int) -> str:
    """The object's key, decoded where the store encodes keys: `a+b.png` and `a b.png` are two objects."""
    key, where = created.s3.object.key, f"S3 notification: Records[{index}].s3.object.key"
    if created.source.startswith(_RAW_KEYS):
        return key
    try:
        decoded = unquote_plus(key, errors="strict")
    except UnicodeDecodeError:
        raise malformed(f"{where}: expected UTF-8, URL-encoded, got {excerpt(key)}") from None
    found = created.s3.object
    is_sure = created.source.startswith(_ENCODED_KEYS) or found.etag or found.version_id not in (None, "", "null")
    if decoded != key and not is_sure:
        raise malformed(
            f"{where}: {excerpt(key)} may be URL-encoded or not: eventSource {excerpt(created.source)} is unknown, "
            "and no eTag says which object is meant"
        )
    return decoded


def _from_sns(document: dict[str, Any]) -> Parsed:
    """A message of Amazon SNS without raw delivery; those that confirm a subscription are ignored."""
    if document["Type"] != "Notification":
        return Parsed((), ignored=1)
    message = document.get("Message")
    try:
        inner = from_json(message) if isinstance(message, str) else None
    except ValueError:
        inner = None
    # Not another message of SNS: they could be wrapped without end.
    found = None if not isinstance(inner, dict) or "TopicArn" in inner else read_notification(inner)
    if found is None:
        raise malformed(f"SNS message: Message: expected an S3 notification in JSON, got {excerpt(message)}")
    return found


def _from_event_bridge(document: dict[str, Any]) -> Parsed:
    if document["detail-type"] != "Object Created":
        return Parsed((), ignored=1)
    try:
        event = _Bridge.model_validate(document)
        found = event.detail.object
        return _parsed(
            _object_event(
                event.detail.bucket.name,
                found.key,
                time=event.time,
                size=found.size,
                etag=found.etag,
                version_id=found.version_id,
                sequencer=found.sequencer,
            )
        )
    except ValidationError as error:
        raise malformed(f"EventBridge event: {one_line(problems(error))}") from None


def _from_r2(document: dict[str, Any]) -> Parsed:
    if document["action"] not in _R2_CREATED:
        return Parsed((), ignored=1)
    try:
        event = _R2.model_validate(document)
        found = event.object
        return _parsed(_object_event(event.bucket, found.key, time=event.time, size=found.size, etag=found.etag))
    except ValidationError as error:
        raise malformed(f"R2 notification: {one_line(problems(error))}") from None


def _from_google(kind: str, time: datetime | None, document: dict[str, Any]) -> Parsed:
    """An object that is read by the S3-compatible API, whose ETag is the MD5 hash of what was written in one piece."""
    if kind != f"{GOOGLE}finalized":
        return Parsed((), ignored=1)
    try:
        found = _GoogleObject.model_validate(document)
        created = found.created or time
        if created is None:
            raise malformed("Google Cloud Storage event: timeCreated: is missing")
        return _parsed(
            _object_event(
                found.bucket,
                found.name,
                time=created,
                size=found.size,
                etag=_hexadecimal(found.md5),
                sequencer=None if found.generation is None else str(found.generation),
                content_type=found.content_type,
            )
        )
    except ValidationError as error:
        raise malformed(f"Google Cloud Storage event: {one_line(problems(error))}") from None


def _from_azure(kind: str, time: datetime | None, document: dict[str, Any]) -> Parsed:
    if kind != f"{AZURE}BlobCreated":
        return Parsed((), ignored=1)
    try:
        found = _AzureBlob.model_validate(document)
        if time is None:
            raise malformed("Azure Blob Storage event: CloudEvent: time: is missing")
        if not found.size:
            return Parsed((), ignored=1)  # a folder, or a blob that is written block by block
        etag = _bare(found.etag)
        return Parsed(
            (
                ImageEvent(
                    id=derived_id("azure", found.url, etag or "", found.sequencer or time.isoformat()),
                    occurred_at=time,
                    image=HttpReference(url=found.url, etag=etag),
                    content_type=found.content_type or None,
                ),
            )
        )
    except ValidationError as error:
        raise malformed(f"Azure Blob Storage event: {one_line(problems(error))}") from None


def _object_event(
    bucket: str,
    key: str,
    *,
    time: datetime,
    size: int | None,
    etag: str | None = None,
    version_id: str | None = None,
    sequencer: str | None = None,
    content_type: str | None = None,
) -> ImageEvent | None:
    """None for a folder, as consoles make them. Raises ValidationError."""
    if key.endswith("/") and not size:
        return None
    reference = S3Reference(
        bucket=bucket,
        key=key,
        version_id=None if version_id in ("", "null") else version_id,
        etag=_bare(etag),
    )
    return ImageEvent(
        id=_object_event_id(reference, sequencer or time.isoformat()),
        occurred_at=time,
        image=reference,
        content_type=content_type or None,
    )


def _object_event_id(reference: S3Reference, sequencer: str) -> str:
    """The same for each delivery of one notification, another for each write of the object."""
    if reference.version_id is not None:
        return derived_id("s3", reference.bucket, reference.key, reference.version_id)
    return derived_id("s3", reference.bucket, reference.key, reference.etag or "", sequencer)


def derived_id(kind: str, *parts: str) -> str:
    """An id of bounded length; the parts go through JSON, so that no two lists of parts run together."""
    return f"{kind}-{hashlib.sha256(to_json(parts)).hexdigest()}"


def malformed(message: str) -> MalformedRecord:
    """The refusal of a record for its shape."""
    return MalformedRecord(FailureReason.MALFORMED_EVENT, message)


def _parsed(event: ImageEvent | None) -> Parsed:
    return Parsed((), ignored=1) if event is None else Parsed((event,))


def _bare(etag: str | None) -> str | None:
    return (etag or "").strip('"') or None


def _hexadecimal(md5: str | None) -> str | None:
    """From base64; None where it is missing, as of composed objects."""
    try:
        return base64.b64decode(md5, validate=True).hex() if md5 else None
    except (ValueError, binascii.Error):
        raise malformed(f"Google Cloud Storage event: md5Hash: expected base64, got {excerpt(md5)}") from None
