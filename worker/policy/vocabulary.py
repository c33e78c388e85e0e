"""What a policy can speak of: the fields of an event, its scores and its provenance, and CEL's functions.

In the compiled condition `event.prompt` is the variable `event__prompt`, and `has(event.prompt)` the variable
`event__prompt__given`: the library takes a scalar in a tenth of a microsecond and a map in several, so a map for each
of the three would cost more than all rules together.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

import cel

from schemas import ImageEvent, Provenance, Scores

MAX_VALUES: Final = 1000
MAX_TEXT: Final = 65_536
"""Of an event's attributes, for a rule that reads them: a sender could otherwise keep it busy for minutes."""


class EvaluationError(Exception):
    """A condition that has no answer for this event. The message repeats nothing of the event but a missing name."""


@dataclass(frozen=True, eq=False)
class Field:
    """A field of `event`, `scores` or `provenance`; an optional one may be absent."""

    variable: str
    name: str
    optional: bool
    example: Any

    def __str__(self) -> str:
        return f"{self.variable}.{self.name}"

    @cached_property
    def cel_name(self) -> str:
        return f"{self.variable}__{self.name}"

    @cached_property
    def given_name(self) -> str:
        return f"{self.variable}__{self.name}__given"

    def of(self, event: ImageEvent, scores: Scores, provenance: Provenance) -> Any:
        """The field's value; None where it is absent."""
        source = event if self.variable == "event" else scores if self.variable == "scores" else provenance
        value = getattr(source, self.name)
        return value.model_dump(exclude={"bytes"}, exclude_none=True) if self.name == "image" else value

    def bind(self, context: cel.Context, value: Any) -> None:
        """Puts the value, or its absence, into the context. Raises EvaluationError for one that CEL cannot hold."""
        if self.name == "attributes" and not _is_small(value):
            raise EvaluationError(
                f"{self} holds more than {MAX_VALUES} values or {MAX_TEXT} characters; rules look through no more"
            )
        if value is not None:
            try:
                context.add_variable(self.cel_name, value)
            except Exception:  # noqa: BLE001 - the library raises many kinds, for a number of thousands of digits
                raise EvaluationError(f"{self} has a value that CEL cannot hold") from None
        if self.optional:
            context.add_variable(self.given_name, value is not None)


def _is_small(value: Any) -> bool:
    """Whether a JSON value is within the limits for rules; stops at the first excess."""
    values, text, left = 0, 0, [value]
    while left:
        found = left.pop()
        values += 1
        if isinstance(found, str):
            text += len(found)
        elif isinstance(found, dict):
            text += sum(map(len, found))
            left.extend(found.values())
        elif isinstance(found, list):
            left.extend(found)
        if values + len(left) > MAX_VALUES + 1 or text > MAX_TEXT:
            return False
    return True


_FIELDS: Final = (
    Field("event", "id", False, "event-1"),
    Field("event", "occurred_at", False, datetime(2026, 1, 1, tzinfo=UTC)),
    Field("event", "tenant", False, "default"),
    Field("event", "priority", False, 50),
    Field("event", "image", False, {"kind": "inline"}),
    Field("event", "attributes", False, {}),
    Field("event", "prompt", True, "a cat on a mat"),
    Field("event", "generator", True, "generator-1"),
    Field("event", "content_type", True, "image/png"),
    Field("event", "sha256", True, "0" * 64),
    Field("scores", "quality", False, 3.0),
    Field("scores", "anchors", True, [0.1, 0.2, 0.4, 0.2, 0.1]),
    Field("scores", "coarse_share", True, 0.5),
    Field("scores", "correspondence", True, 3.0),
    Field("scores", "frames", False, 1),
    Field("scores", "worst_frame", True, 0),
    Field("provenance", "found", False, True),
    Field("provenance", "c2pa", False, "absent"),
    Field("provenance", "c2pa_generator", True, "generator 1.0"),
    Field("provenance", "c2pa_signer", True, "Example Inc."),
    Field("provenance", "c2pa_source_type", True, "trainedAlgorithmicMedia"),
    Field("provenance", "source_type", True, "trainedAlgorithmicMedia"),
    Field("provenance", "software", True, "editor 1.0"),
    Field("provenance", "generator", True, "comfyui"),
    Field("provenance", "model", True, "model-1"),
    Field("provenance", "sampler", True, "euler"),
    Field("provenance", "steps", True, 20),
    Field("provenance", "seed", True, "42"),
)
FIELDS: Final[dict[tuple[str, ...], Field]] = {(field.variable, field.name): field for field in _FIELDS}

IMAGE_FIELDS: Final = ("kind", "bucket", "key", "version_id", "etag", "url", "path")
"""Fields of `event.image`: `kind`, and those that a reference of this kind has. An inline one's bytes are left out."""

FUNCTIONS: Final = frozenset(
    {"size", "contains", "startsWith", "endsWith", "matches", "string", "bytes", "double", "int", "uint", "dyn", "type"}
    | {"duration", "timestamp", "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear"}
    | {"getHours", "getMinutes", "getSeconds", "getMilliseconds"}
)
MACROS: Final = frozenset({"all", "exists", "exists_one", "map", "filter"})
TYPES: Final = frozenset({"bool", "int", "uint", "double", "string", "bytes", "list", "map", "null_type", "type"})

EXAMPLE_IMAGES: Final = (
    {"kind": "s3", "bucket": "images", "key": "a.png", "version_id": "1", "etag": "1"},
    {"kind": "s3", "bucket": "images", "key": "a.png"},
    {"kind": "http", "url": "https://example.com/a.png"},
    {"kind": "file", "path": "a.png"},
    {"kind": "inline"},
)
EXAMPLE_QUALITIES: Final = (3.0, 1.0, 1.4, 1.7, 2.1, 2.4, 2.7, 3.4, 3.7, 4.3, 5.0)
"""Values to try conditions on, beside the fields' own examples."""
