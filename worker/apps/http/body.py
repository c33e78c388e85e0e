"""Reads the image event from a request's body."""

from collections.abc import AsyncGenerator
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final
from uuid import uuid4

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from schemas import ImageEvent, InlineReference
from schemas.explain import dotted, one_line, problems
from worker.review.http.problems import MANY, Problem

IMAGE_FIELD: Final = "image"
TEXT_FIELDS: Final = ("id", "tenant", "prompt", "generator", "sha256", "priority", "attributes")
_KNOWN: Final = tuple(field.alias or name for name, field in ImageEvent.model_fields.items())
_MAX_TEXT_BYTES: Final = 256 * 1024
_MAX_VALUES: Final = 50_000
"""More values than an event can have. Base64 data contains none of the JSON characters that are counted."""


async def read_event(headers: Headers, body: bytes, now: datetime) -> ImageEvent:
    """The event in a body: an image event as JSON, or a form with a field `image`. Raises Problem."""
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == "application/json":
        return await run_in_threadpool(_from_json, body)
    if media_type == "multipart/form-data":
        return await _from_form(headers, body, now)
    raise Problem(
        HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "expected application/json with an image event, or multipart/form-data with a field `image`",
    )


def _from_json(body: bytes) -> ImageEvent:
    # A body of the maximum size that is full of small values would take gigabytes and half a minute to parse, and no
    # other thread would run meanwhile, not even the health check.
    if len(body) > _MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > _MAX_VALUES:
        raise _malformed(f"more than {_MAX_VALUES} commas and opening brackets: too many for an image event")
    try:
        event = ImageEvent.model_validate_json(body, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise _invalid(error) from None
    if "schema_" not in event.model_fields_set:
        raise Problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", "schema: is missing; expected 'sluice.image-event/1'"
        )
    return event


async def _from_form(headers: Headers, body: bytes, now: datetime) -> ImageEvent:
    form = await _form(headers, body)
    fields: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, UploadFile) != (name == IMAGE_FIELD) or name not in (IMAGE_FIELD, *TEXT_FIELDS):
            raise _malformed(f"field {name[:60]!r}: expected a file `image` and, as text, {', '.join(TEXT_FIELDS)}")
        if name in fields:
            raise _malformed(f"field {name!r}: appears twice")
        if isinstance(value, UploadFile):
            fields[name] = InlineReference(bytes=await value.read())
        else:
            fields[name] = _json(name, value) if name in ("priority", "attributes") else value
    if IMAGE_FIELD not in fields:
        raise _malformed("the form has no file `image`")
    try:
        return ImageEvent.model_validate({"id": f"http-{uuid4()}", "occurred_at": now, **fields})
    except ValidationError as error:
        raise _invalid(error) from None


async def _form(headers: Headers, body: bytes) -> FormData:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(headers, stream(), max_files=1, max_fields=len(TEXT_FIELDS), max_part_size=_MAX_TEXT_BYTES)
    parser.spool_max_size = len(body)  # it is already in memory, so nothing is written to disk
    try:
        return await parser.parse()
    except MultiPartException as error:
        raise _malformed(f"not multipart/form-data: {error.message}") from None
    except (KeyError, UnicodeDecodeError):  # no boundary, or names in an unknown encoding
        raise _malformed("not multipart/form-data: the boundary is missing, or a name is not UTF-8") from None


def _json(name: str, text: str) -> Any:
    try:
        return from_json(text)
    except ValueError:
        raise _malformed(f"field {name!r}: expected JSON") from None


def _invalid(error: ValidationError) -> Problem:
    found = problems(error, known=_KNOWN)
    faults = [{"where": dotted(problem.path), "what": problem.text} for problem in found[:MANY]]
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", f"image event: {one_line(found)}", faults=faults)


def _malformed(detail: str) -> Problem:
    return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid-request", detail)
