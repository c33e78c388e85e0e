"""Whatever comes, parsing gives events or a MalformedRecord."""

import json
from datetime import UTC
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from schemas import FileReference, HttpReference, ImageEvent, InlineReference, S3Reference
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, Parsed, parse

KEYS = st.sampled_from(
    [
        *(
            "schema",
            "id",
            "occurred_at",
            "tenant",
            "image",
            "kind",
            "bucket",
            "key",
            "bytes",
            "url",
            "path",
            "attributes",
        ),
        *(
            "Records",
            "Event",
            "eventName",
            "eventTime",
            "s3",
            "object",
            "name",
            "versionId",
            "eTag",
            "sequencer",
            "size",
        ),
        *("specversion", "source", "type", "time", "data", "data_base64", "datacontenttype", "priority"),
    ]
)
ODD = st.sampled_from(
    [
        *(
            "sluice.image-event/1",
            "s3",
            "inline",
            "file",
            "http",
            "ObjectCreated:Put",
            "s3:TestEvent",
            "1.0",
            "%FF",
            "a%00",
        ),
        *(
            "2026-01-01T00:00:00Z",
            "9999999999999",
            "application/json",
            "\ud800",
            "\uffff",
            "null",
            2**63,
            -(2**70),
            1e308,
        ),
    ]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | ODD
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=8), inner, max_size=8)
)
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "Content-Type", "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time"])
        | st.text(max_size=10),
        st.none()
        | st.binary(max_size=20)
        | st.sampled_from([b"1.0", b"application/cloudevents+json", b"application/json", b"2026-01-01T00:00:00Z"]),
    ),
    max_size=8,
)


def parsed_or_refused(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> Parsed | None:
    try:
        parsed = parse(Record(Partition("images.in", 0), 0, value, headers=tuple(headers)))
    except MalformedRecord as refused:
        message = refused.message
        parsed = None
    if parsed is None:
        assert message.isprintable()
        assert len(message) < 1000
        return None
    for event in parsed.events:
        # What was taken in can be written out again.
        assert ImageEvent.model_validate_json(event.model_dump_json()) == event
    return parsed


@given(st.none() | st.binary(), HEADERS)
def test_any_bytes_are_parsed_or_refused(value: bytes | None, headers: list[tuple[str, bytes | None]]) -> None:
    parsed_or_refused(value, headers)


@given(JSON, HEADERS)
def test_any_json_is_parsed_or_refused(document: Any, headers: list[tuple[str, bytes | None]]) -> None:
    parsed_or_refused(json.dumps(document).encode(), headers)


@given(st.dictionaries(KEYS, JSON), st.sampled_from(["Records", "image", "data", "attributes", "id", "occurred_at"]))
def test_a_good_message_with_any_part_replaced_is_parsed_or_refused(parts: dict[str, Any], where: str) -> None:
    good: dict[str, Any] = {
        "schema": "sluice.image-event/1",
        "id": "1",
        "occurred_at": "2026-01-01T00:00:00Z",
        "image": {"kind": "file", "path": "a"},
    }
    parsed_or_refused(json.dumps({**good, where: parts}).encode(), [])
    parsed_or_refused(json.dumps({**good, **parts}).encode(), [])
    notification = {
        "eventName": "ObjectCreated:Put",
        "eventTime": "2026-01-01T00:00:00Z",
        "s3": {"bucket": {"name": "b"}, "object": {"key": "k"}},
    }
    parsed_or_refused(json.dumps({"Records": [{**notification, **parts}]}).encode(), [])
    envelope = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "data": {**good, **parts}}
    parsed_or_refused(json.dumps(envelope).encode(), [("content-type", b"application/cloudevents+json")])


PRINTABLE = st.text(
    st.characters(min_codepoint=32, exclude_characters="\x7f", exclude_categories=["Cs"]), min_size=1, max_size=50
)
REFERENCES = (
    st.builds(
        S3Reference, bucket=st.just("b"), key=PRINTABLE, version_id=st.none() | PRINTABLE, etag=st.none() | PRINTABLE
    )
    | st.builds(HttpReference, url=st.just("https://example.com/a.png"))
    | st.builds(FileReference, path=PRINTABLE)
    | st.builds(InlineReference, bytes=st.binary(max_size=50))
)
FINITE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | PRINTABLE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PRINTABLE, inner, max_size=3),
    max_leaves=10,
)
EVENTS = st.builds(
    ImageEvent,
    schema=st.just("sluice.image-event/1"),
    id=PRINTABLE,
    occurred_at=st.datetimes(timezones=st.just(UTC)),
    image=REFERENCES,
    prompt=st.none() | PRINTABLE,
    generator=st.none() | PRINTABLE,
    priority=st.integers(0, 100),
    attributes=st.dictionaries(PRINTABLE, FINITE, max_size=5),
)


@given(EVENTS)
def test_an_event_that_is_written_is_read_as_it_was(event: ImageEvent) -> None:
    parsed = parsed_or_refused(event.model_dump_json().encode(), [])
    assert parsed == Parsed((event,))
