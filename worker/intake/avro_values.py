"""From Avro data to the JSON that `parse` reads.

The data comes from senders and is hostile. fastavro follows the schema, so a schema is refused with which a few bytes
could keep it busy for ever or overflow its stack.
"""

import base64
import io
import json
from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

MAX_DEPTH: Final = 32
_NAMED: Final = ("record", "error", "enum", "fixed")

AvroReader = Callable[[bytes], bytes]
"""Avro data in, JSON out. Raises AvroMismatch."""


class UnusableSchema(Exception):
    """Values of this schema cannot be read; the message says why."""


class AvroMismatch(Exception):
    """The data does not fit its schema."""


def avro_reader(text: str) -> AvroReader:
    """A reader for values of an Avro schema in JSON. Raises UnusableSchema."""
    import fastavro  # costs a start where no registry is used

    try:
        document = json.loads(text)
        _check(document, {}, (), 0)
        schema = fastavro.parse_schema(document)
    except UnusableSchema:
        raise
    except Exception as error:  # fastavro has no base class for what a broken schema raises
        raise UnusableSchema(f"the Avro schema cannot be read: {type(error).__name__}: {error}") from error

    def to_json_of(data: bytes) -> bytes:
        stream = io.BytesIO(data)
        try:
            read = to_json(_plain(fastavro.schemaless_reader(stream, schema, None)))
        except Exception as error:  # whatever broken data leads to in there
            raise AvroMismatch(f"{type(error).__name__}: {error}") from error
        if left := len(data) - stream.tell():
            raise AvroMismatch(f"{left} bytes are left behind the value")
        return read

    return to_json_of


def _plain(value: Any) -> Any:
    """A value of Avro as one of JSON. Absent fields of records are left out."""
    match value:
        case Mapping():
            return {str(name): _plain(each) for name, each in value.items() if each is not None}
        case list() | tuple():
            return [_plain(each) for each in value]
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
        case datetime() | date() | time():
            return value.isoformat()
        case _:
            return value


def _check(schema: Any, named: dict[str, bool], open_names: tuple[str, ...], depth: int) -> bool:
    """Whether a value of the schema takes at least one byte. Raises UnusableSchema for a recursive schema, and for a
    list of items that take none: its length alone would decide how long reading takes."""
    if depth > MAX_DEPTH:
        raise UnusableSchema(f"the Avro schema is nested more than {MAX_DEPTH} deep")
    if isinstance(schema, list):  # a union writes which of its branches it is
        for branch in schema:
            _check(branch, named, open_names, depth + 1)
        return True
    if isinstance(schema, str):
        if schema in open_names or any(name.rpartition(".")[2] == schema for name in open_names):
            raise UnusableSchema(f"the Avro schema is recursive ({schema})")
        return named.get(schema, schema != "null")
    if not isinstance(schema, dict):
        raise UnusableSchema("the Avro schema is no JSON object")
    kind = schema.get("type")
    if kind in ("array", "map"):
        is_sized = _check(schema.get("items" if kind == "array" else "values"), named, open_names, depth + 1)
        if kind == "array" and not is_sized:
            raise UnusableSchema("the Avro schema has a list of items that take no byte")
        return True
    name = str(schema.get("name", ""))
    if kind in ("record", "error"):
        fields = schema.get("fields", [])
        sized = [_check(field.get("type"), named, (*open_names, name), depth + 1) for field in fields]
        named[name] = any(sized)
        return named[name]
    if kind in _NAMED:
        named[name] = kind != "fixed" or int(schema.get("size", 0)) > 0
        return named[name]
    return _check(kind, named, open_names, depth + 1)
