"""Turns pydantic's errors into messages: `field: what is expected`."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError

EXCERPT = 60
"""At most so many characters of a foreign value are echoed."""
MANY = 100
"""From so many problems on, they are only counted: listing them would cost more than they are worth."""

_PLAIN = {
    "dict_type": "expected an object",
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "union_tag_not_found": "has no 'kind'; expected s3, http, file or inline",
    "string_type": "expected text",
    "bytes_type": "expected text in base64",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "float_type": "expected a number",
    "float_parsing": "expected a number",
    "bool_type": "expected true or false",
    "bool_parsing": "expected true or false",
    "list_type": "expected a list",
    "tuple_type": "expected a list",
    "datetime_type": "expected a time as ISO 8601 with an offset",
    "timezone_aware": "expected a time with an offset (…Z or …+02:00)",
    "path_type": "expected a path",
}
_NAME = re.compile(r"[\w.-]{1,60}")
_TAGS = frozenset({"s3", "http", "file", "inline"})


@dataclass(frozen=True, slots=True)
class DocumentProblem:
    """One thing that is wrong: `path` leads to it through keys and indices, `text` says what is expected.

    With `echo` false its text shows only keys that look like names: where a quote is missing, a value is part of a key.
    """

    path: tuple[str | int, ...]
    text: str
    echo: bool = True

    def __str__(self) -> str:
        return f"{dotted(self.path, echo=self.echo)}: {self.text}" if self.path else self.text


def problems(error: ValidationError, *, known: Iterable[str] = (), echo: bool = True) -> list[DocumentProblem]:
    """Every problem of a refused document, in its order.

    `known` are the names that a mistyped key may have meant. With `echo` false no value is repeated, for documents that
    hold secrets. From MANY problems on a single one gives their number.
    """
    count = error.error_count()
    if count > MANY:
        return [DocumentProblem((), f"{count} problems: this is not a document of the expected schema")]
    details = error.errors(include_url=False)
    return [DocumentProblem(_path(detail["loc"]), _text(detail, tuple(known), echo), echo) for detail in details]


def one_line(found: Sequence[DocumentProblem], *, most: int = 3) -> str:
    """The first problems on one line, with the number of those left out."""
    text = "; ".join(str(problem) for problem in found[:most])
    return f"{text}; and {len(found) - most} more" if len(found) > most else text


def dotted(path: Sequence[str | int], *, echo: bool = True) -> str:
    """`("Records", 3, "s3")` as `Records[3].s3`; keys come from outside, so they are cut and escaped.

    With `echo` false a key that does not look like a name is left out.
    """
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = part.isidentifier() and len(part) <= EXCERPT
            name = part if plain else excerpt(part) if echo or _NAME.fullmatch(part) else "(a key that is no name)"
            text += f".{name}" if text else name
    return text


def excerpt(value: object) -> str:
    """A short, escaped piece of a foreign value."""
    # Cut before escaping: a hostile value may be megabytes long.
    text = ascii(value[: EXCERPT + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= EXCERPT else f"{text[: EXCERPT - 1]}…"


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'prompt'?` where a known name is near, else nothing."""
    near = get_close_matches(name[:EXCERPT], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _path(loc: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The path without the tags that pydantic inserts for members of a union."""
    return tuple(part for index, part in enumerate(loc) if not (index and part in _TAGS and loc[index - 1] == "image"))


def _text(detail: Any, known: tuple[str, ...], echo: bool) -> str:
    kind, message, value = detail["type"], str(detail["msg"]), detail["input"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is not a known key{suggestion(str(detail['loc'][-1]), known)}"
    if kind == "json_invalid":
        return f"not JSON: {message.removeprefix('Invalid JSON: ')}"
    if kind == "union_tag_invalid":
        text = f"kind must be one of {detail['ctx']['expected_tags']}"
        return f"{text}, got {excerpt(detail['ctx']['tag'])}" if echo else text
    text = _PLAIN.get(kind) or message.removeprefix("Value error, ").removeprefix("Input ").removeprefix("String ")
    # A container would be echoed by its innards, which say nothing of the problem.
    return f"{text}, got {excerpt(value)}" if echo and isinstance(value, str | int | float | None) else text
