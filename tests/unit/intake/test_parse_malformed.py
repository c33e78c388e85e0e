"""Each malformed record gives an error that names the field and what is expected."""

import json
from typing import Any

import pytest

from schemas import FailureReason
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, parse

EVENT: dict[str, Any] = {
    "schema": "sluice.image-event/1",
    "id": "event-1",
    "occurred_at": "2026-01-01T12:00:00Z",
    "image": {"kind": "s3", "bucket": "images", "key": "a.png"},
}
S3: dict[str, Any] = {
    "eventTime": "2026-01-01T12:00:00Z",
    "eventName": "ObjectCreated:Put",
    "s3": {"bucket": {"name": "images"}, "object": {"key": "a.png", "eTag": "x", "sequencer": "1"}},
}
CLOUD_EVENT: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": EVENT}
STRUCTURED = {"content-type": b"application/cloudevents+json"}
BINARY = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/s", "ce_type": b"t"}


def changed(**values: Any) -> dict[str, Any]:
    return {**EVENT, **values}


def without(document: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key != name}


def image(**values: Any) -> dict[str, Any]:
    return changed(image=values)


NOT_JSON = [
    (b"", "the value is not JSON: EOF"),
    (b"{", "the value is not JSON: EOF"),
    (b"\xff\xfe", "the value is not JSON"),
    (b"\x00\x00\x00\x01\x05", "the value is framed by a schema registry (schema 261) and is no JSON"),
    (b"\xef\xbb\xbf{}", "the value is not JSON"),
    (b'{"prompt": "\\ud800"}', "the value is not JSON"),
    (b"[" * 100_000, "the value is not JSON: recursion limit"),
    (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, "the value is not JSON: recursion limit"),
    (b'{"id": ' + b"9" * 10_000 + b"}", "the value is not JSON: number out of range"),
    (b"[]", "not a JSON object; expected an image event (schema: sluice.image-event/1), an S3 notification"),
    (b'{"kind": "storage#object"}', "none of the shapes that are known; expected an image event"),
    (b'[{"specversion": "1.0"}]', "CloudEvent: id: is missing"),
    (b'"text"', "not a JSON object"),
    (b"null", "not a JSON object"),
]
EVENTS = [
    ({"schema": "sluice.image-event/1"}, "id: is missing; occurred_at: is missing; image: is missing"),
    (without(EVENT, "schema"), "schema: is missing; expected 'sluice.image-event/1'"),
    (changed(schema="sluice.image-event/2"), "schema: should be 'sluice.image-event/1', got 'sluice.image-event/2'"),
    (changed(schema_="sluice.image-event/1"), "schema_: is not a known key"),
    (without(EVENT, "id"), "id: is missing"),
    (changed(id=""), "id: should have at least 1 character"),
    (changed(id=5), "id: expected text, got 5"),
    (changed(id="a\nb"), "id: should match pattern"),
    (changed(id="x" * 600), "id: should have at most 512 characters"),
    (changed(occurred_at="2026-01-01T12:00:00"), "occurred_at: expected a time with an offset"),
    (changed(occurred_at=1767268800), "occurred_at: expected a time as ISO 8601"),
    (changed(occurred_at="yesterday"), "occurred_at: should be a valid datetime"),
    (changed(tenant="a b"), "tenant: should match pattern"),
    (changed(priority=101), "priority: should be less than or equal to 100, got 101"),
    (changed(priority="high"), "priority: expected a whole number, got 'high'"),
    (changed(priority=True), "priority: expected a whole number, got True"),
    (changed(sha256="ABC"), "sha256: should match pattern"),
    (changed(prompt=["a"]), "prompt: expected text"),
    (changed(prompt="x" * 20_001), "prompt: should have at most 20000 characters"),
    (changed(promt="a cat"), "promt: is not a known key; did you mean 'prompt'?"),
    (changed(attributes=[]), "attributes: expected an object"),
    (changed(attributes={"weight": float("nan")}), "attributes: holds a number that is not finite"),
    (changed(attributes={"a": [{"b": float("inf")}]}), "attributes: holds a number that is not finite"),
    (changed(attributes={str(number): 1 for number in range(65)}), "attributes: Dictionary should have at most 64"),
]
REFERENCES = [
    (changed(image="s3://images/a.png"), "image: expected an object, got 's3://images/a.png'"),
    (image(bucket="images", key="a.png"), "image: has no 'kind'; expected s3, http, file or inline"),
    (image(kind="ftp", url="ftp://x"), "image: kind must be one of 's3', 'http', 'file', 'inline', got 'ftp'"),
    (image(kind="s3", bucket="images"), "image.key: is missing"),
    (image(kind="s3", bucket="../etc", key="a"), "image.bucket: should match pattern"),
    (image(kind="s3", bucket="images", key=""), "image.key: should have at least 1 character"),
    (image(kind="s3", bucket="images", key="x" * 1025), "image.key: should have at most 1024 characters"),
    (image(kind="s3", bucket="images", key="a", path="/b"), "image.path: is not a known key"),
    (image(kind="http", url="gopher://x/a.png"), "image.url: should match pattern"),
    (image(kind="http", url="https://x/a b.png"), "image.url: should match pattern"),
    (image(kind="http", url=None), "image.url: expected text, got None"),
    (image(kind="file", path="a\x00.png"), "image.path: should match pattern"),
    (image(kind="inline", bytes="!!!"), "image.bytes: not base64"),
    (image(kind="inline", bytes=[1, 2]), "image.bytes: expected text in base64"),
]
NOTIFICATIONS = [
    ({"Records": []}, "Records: expected a list of 1 to 1000, got 0 entries"),
    ({"Records": [S3] * 1001}, "Records: expected a list of 1 to 1000, got 1001 entries"),
    ({"Records": {}}, "Records: expected a list of 1 to 1000, got 'dict'"),
    ({"Records": ["x"]}, "Records[0].eventName: expected text, such as ObjectCreated:Put"),
    ({"Records": [S3, without(S3, "s3")]}, "Records[1].s3: is missing"),
    ({"Records": [without(S3, "eventTime")]}, "Records[0].eventTime: is missing"),
    ({"Records": [{**S3, "eventTime": "soon"}]}, "Records[0].eventTime: should be a valid datetime"),
    ({"Records": [{**S3, "s3": {"bucket": {}, "object": {"key": "a"}}}]}, "Records[0].s3.bucket.name: is missing"),
    ({"Records": [{**S3, "s3": {"bucket": {"name": "b"}, "object": {}}}]}, "Records[0].s3.object.key: is missing"),
    (
        {"Records": [{**S3, "s3": {"bucket": {"name": "b"}, "object": {"key": "%FF.png"}}}]},
        "Records[0].s3.object.key: expected UTF-8, URL-encoded, got '%FF.png'",
    ),
]
CLOUD_EVENTS = [
    (without(CLOUD_EVENT, "id"), STRUCTURED, "CloudEvent: id: is missing"),
    ({**CLOUD_EVENT, "id": ""}, STRUCTURED, "CloudEvent: id: should have at least 1 character"),
    ({**CLOUD_EVENT, "specversion": "0.3"}, STRUCTURED, "CloudEvent: specversion: should be '1.0', got '0.3'"),
    ({**CLOUD_EVENT, "time": "noon"}, STRUCTURED, "CloudEvent: time: should be a valid datetime"),
    (without(CLOUD_EVENT, "data"), STRUCTURED, "CloudEvent: data is missing"),
    ({**CLOUD_EVENT, "data_base64": "e30="}, STRUCTURED, "CloudEvent: has both data and data_base64"),
    ({**without(CLOUD_EVENT, "data"), "data_base64": "?"}, STRUCTURED, "CloudEvent: data_base64: not base64"),
    ({**CLOUD_EVENT, "datacontenttype": "image/png"}, STRUCTURED, "datacontenttype: expected application/json"),
    (b"{", STRUCTURED, "CloudEvent: not JSON"),
    ([CLOUD_EVENT], {"content-type": b"application/cloudevents-batch+json"}, "expected application/cloudevents+json"),
    (EVENT, {**BINARY, "ce_id": b""}, "CloudEvent: id: should have at least 1 character"),
    (EVENT, {"ce_specversion": b"1.0"}, "CloudEvent: id: is missing; source: is missing; type: is missing"),
    (EVENT, {**BINARY, "ce_source": b"\xff"}, "header 'ce_source': expected UTF-8"),
    (EVENT, {**BINARY, "CE_ID": b"2"}, "header 'ce_id' appears twice"),
    (EVENT, {**BINARY, "content-type": b"text/xml"}, "datacontenttype: expected application/json, got 'text/xml'"),
    (without(EVENT, "occurred_at"), BINARY, "image event: occurred_at: is missing"),
]
TABLE = [(value, {}, says) for value, says in [*NOT_JSON, *EVENTS, *REFERENCES, *NOTIFICATIONS]] + CLOUD_EVENTS


@pytest.mark.parametrize(("value", "headers", "says"), TABLE, ids=[says[:70] for *_, says in TABLE])
def test_a_malformed_record_is_refused_with_what_is_expected(value: Any, headers: dict[str, bytes], says: str) -> None:
    encoded = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    with pytest.raises(MalformedRecord) as refused:
        parse(Record(Partition("images.in", 0), 0, encoded, headers=tuple(headers.items())))
    assert says in refused.value.message
    assert refused.value.reason is FailureReason.MALFORMED_EVENT
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 600


@pytest.mark.parametrize("headers", [(), (("ce_specversion", b"1.0"),), (("content-type", b"\xff"),)])
def test_a_record_without_a_value_is_told_apart_as_a_tombstone(headers: tuple[tuple[str, bytes], ...]) -> None:
    with pytest.raises(MalformedRecord, match="marks its key as deleted") as refused:
        parse(Record(Partition("images", 0), 1, None, b"\xff\x00 an odd key", headers))
    assert refused.value.reason is FailureReason.TOMBSTONE
