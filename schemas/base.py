"""What every wire contract shares."""

from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""An id chosen by somebody else: any printable text of 1 to 512 characters."""

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]*$")]
"""A name used in topics, queues, tenants and labels."""

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 hexadecimal digits, of content, a manifest or a policy."""

Timestamp = AwareDatetime
"""ISO 8601 with an offset; a time without a zone is refused."""

Priority = Annotated[int, Field(ge=0, le=100)]
"""0 (can wait) to 100 (now)."""


class Contract(BaseModel):
    """A versioned message. Unknown keys are refused: a typo must not pass for a missing value."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, ser_json_bytes="base64", val_json_bytes="base64"
    )
