"""What every wire contract shares."""

import binascii
from base64 import b64decode, b64encode
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    WithJsonSchema,
)

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""An id chosen by somebody else: any printable text of 1 to 512 characters."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
"""A name used in topics, queues, tenants and labels."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 hexadecimal digits, of content, a manifest or a policy."""

Timestamp = AwareDatetime
"""ISO 8601 with an offset; a time without a zone is refused."""


def _from_base64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64 (RFC 4648, standard alphabet): {error}") from error


Base64Data = Annotated[
    bytes,
    BeforeValidator(_from_base64),
    PlainSerializer(lambda value: b64encode(value).decode("ascii"), return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "contentEncoding": "base64"}),
]
"""Bytes in Python, base64 text in JSON (pydantic's own either decode in Python too, or write the URL alphabet)."""

Priority = Annotated[int, Field(ge=0, le=100)]
"""0 (can wait) to 100 (now)."""


class Contract(BaseModel):
    """A versioned message. Unknown keys are refused: a typo must not pass for a missing value."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)
