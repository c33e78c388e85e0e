"""The event that announces an image: `sluice.image-event/1`."""

import json
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, StringConstraints

from schemas.base import Base64Data, Contract, Identifier, Name, Priority, Timestamp


class S3Reference(Contract):
    """An object in S3 or a compatible store."""

    kind: Literal["s3"] = "s3"
    bucket: Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    key: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
    version_id: Annotated[str, StringConstraints(min_length=1, max_length=1024)] | None = None
    etag: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class HttpReference(Contract):
    """An image on a web server. What may be reached is a setting of the worker."""

    kind: Literal["http"] = "http"
    url: Annotated[str, StringConstraints(min_length=8, max_length=4096, pattern=r"^https?://[^\s]+$")]
    etag: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None


class FileReference(Contract):
    """A file on the worker's disk, below one of its configured roots."""

    kind: Literal["file"] = "file"
    path: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


class InlineReference(Contract):
    """The encoded image itself, in base64."""

    kind: Literal["inline"] = "inline"
    bytes: Base64Data


ImageReference = Annotated[S3Reference | HttpReference | FileReference | InlineReference, Field(discriminator="kind")]


def _in_json(attributes: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """NaN and the infinities, which Python's parsers let pass, are no JSON and compare with nothing."""
    try:
        if attributes:
            json.dumps(attributes, allow_nan=False)
    except ValueError:
        raise ValueError("holds a number that is not finite; expected JSON values") from None
    return attributes


class ImageEvent(Contract):
    """One image to judge.

    `prompt` and `generator` are what produced the image, where known; `attributes` is free for the platform and visible
    to the policy. Records of one event id should share a partition key, so that they keep their order.
    """

    schema_: Literal["sluice.image-event/1"] = Field(default="sluice.image-event/1", alias="schema")
    id: Identifier
    occurred_at: Timestamp
    tenant: Name = "default"
    image: ImageReference
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    prompt: Annotated[str, StringConstraints(max_length=20_000)] | None = None
    generator: Annotated[str, StringConstraints(min_length=1, max_length=256)] | None = None
    content_type: Annotated[str, StringConstraints(min_length=3, max_length=128)] | None = None
    priority: Priority = 50
    attributes: Annotated[dict[str, JsonValue], AfterValidator(_in_json)] = Field(default_factory=dict, max_length=64)
