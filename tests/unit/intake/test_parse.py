"""What the intake makes of records: image events, S3 notifications, CloudEvents."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, to_binary_event, to_structured_event
from cloudevents.core.v1.event import CloudEvent

from schemas import FailureReason, ImageEvent, InlineReference, S3Reference
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, Parsed, parse

EVENT: dict[str, Any] = {
    "schema": "sluice.image-event/1",
    "id": "event-1",
    "occurred_at": "2026-01-01T12:00:00Z",
    "image": {"kind": "s3", "bucket": "images", "key": "a.png"},
}
AWS: dict[str, Any] = {
    "eventVersion": "2.3",
    "eventSource": "aws:s3",
    "awsRegion": "us-east-1",
    "eventTime": "2026-01-01T12:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AWS:X"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "all",
        "bucket": {"name": "images", "ownerIdentity": {"principalId": "X"}, "arn": "arn:aws:s3:::images"},
        "object": {"key": "a.png", "size": 1024, "eTag": "d41d8cd9", "versionId": "v1", "sequencer": "0A1B"},
    },
}
MINIO: dict[str, Any] = {
    "EventName": "s3:ObjectCreated:Put",
    "Key": "images/folder/a b.png",
    "Records": [
        {
            "eventVersion": "2.0",
            "eventSource": "minio:s3",
            "eventTime": "2026-01-01T12:00:00.123Z",
            "eventName": "s3:ObjectCreated:Put",
            "s3": {
                "bucket": {"name": "images", "arn": "arn:aws:s3:::images"},
                "object": {
                    "key": "folder%2Fa+b.png",
                    "size": 9,
                    "eTag": "abc",
                    "contentType": "image/png",
                    "userMetadata": {"content-type": "image/png"},
                    "sequencer": "17A0",
                },
            },
            "source": {"host": "127.0.0.1"},
        }
    ],
}
CEPH: dict[str, Any] = {
    **AWS,
    "eventSource": "ceph:s3",
    "eventTime": "2026-01-01T12:00:00.124724Z",
    "eventId": "1.2.3",
    "opaqueData": "",
    "s3": {
        "bucket": {"name": "images", "id": "b1"},
        "object": {"key": "a.png", "size": 1, "etag": "x", "eTag": "x", "versionId": "", "metadata": [], "tags": []},
    },
}


def record(value: Any, headers: dict[str, bytes] | None = None, key: bytes | None = None) -> Record:
    encoded = value if isinstance(value, bytes) or value is None else json.dumps(value).encode()
    return Record(Partition("images.in", 0), 7, encoded, key, tuple((headers or {}).items()))


def s3(name: str = "ObjectCreated:Put", **changed: Any) -> dict[str, Any]:
    """An AWS record with other values of its object."""
    return {**AWS, "eventName": name, "s3": {**AWS["s3"], "object": {**AWS["s3"]["object"], **changed}}}


def only(parsed: Parsed) -> ImageEvent:
    assert len(parsed.events) == 1
    return parsed.events[0]


def test_a_plain_event_is_read_whole() -> None:
    full = {
        **EVENT,
        "tenant": "acme",
        "prompt": "a cat",
        "generator": "sd",
        "content_type": "image/png",
        "priority": 9,
        "sha256": "0" * 64,
        "attributes": {"nsfw": True, "tags": ["a", None, 1.5]},
    }
    parsed = parse(record(full))
    assert parsed.ignored == 0
    assert json.loads(only(parsed).model_dump_json(exclude_none=True)) == full


def test_headers_of_others_do_not_matter() -> None:
    headers = {"traceparent": b"\xff\x00", "content-type": b"application/json"}
    assert only(parse(record(EVENT, headers))).id == "event-1"


def test_an_inline_image_is_decoded() -> None:
    event = only(parse(record({**EVENT, "image": {"kind": "inline", "bytes": "aGVsbG8="}})))
    assert event.image == InlineReference(bytes=b"hello")


def test_each_new_object_of_a_notification_is_an_event() -> None:
    parsed = parse(record({"Records": [s3(key="a.png"), s3(key="b.png"), s3("ObjectCreated:Copy", key="c.png")]}))
    assert [event.image.key for event in parsed.events] == ["a.png", "b.png", "c.png"]  # type: ignore[union-attr]
    assert len({event.id for event in parsed.events}) == 3


@pytest.mark.parametrize(
    "name",
    [
        "ObjectRemoved:Delete",
        "ObjectRemoved:DeleteMarkerCreated",
        "s3:ObjectRemoved:Delete",
        "s3:ObjectAccessed:Get",
        "LifecycleExpiration:Delete",
        "ObjectTagging:Put",
        "s3:TestEvent",
    ],
)
def test_other_notifications_are_counted_and_ignored(name: str) -> None:
    parsed = parse(record({"Records": [s3(name), s3()]}))
    assert (len(parsed.events), parsed.ignored) == (1, 1)


def test_the_test_event_of_a_new_notification_is_counted_and_ignored() -> None:
    sent = {"Service": "Amazon S3", "Event": "s3:TestEvent", "Time": "2026-01-01T12:00:00.000Z", "Bucket": "images"}
    assert parse(record(sent)) == Parsed((), ignored=1)


def test_a_folder_made_in_a_console_is_counted_and_ignored() -> None:
    assert parse(record({"Records": [s3(key="folder/", size=0)]})) == Parsed((), ignored=1)


def test_an_aws_notification_gives_version_and_etag() -> None:
    event = only(parse(record({"Records": [AWS]})))
    assert event.image == S3Reference(bucket="images", key="a.png", version_id="v1", etag="d41d8cd9")
    assert event.occurred_at == datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_minio_notification_is_read() -> None:
    event = only(parse(record(MINIO)))
    assert event.image == S3Reference(bucket="images", key="folder/a b.png", etag="abc")
    assert event.content_type == "image/png"


def test_a_ceph_notification_is_read() -> None:
    assert only(parse(record({"Records": [CEPH]}))).image == S3Reference(bucket="images", key="a.png", etag="x")


@pytest.mark.parametrize(
    ("encoded", "key"),
    [
        ("a+b.png", "a b.png"),
        ("a%2Bb.png", "a+b.png"),
        ("%C3%A9t%C3%A9/%E7%8C%AB.png", "été/猫.png"),
        ("a%252F", "a%2F"),
    ],
)
def test_object_keys_are_url_decoded_once(encoded: str, key: str) -> None:
    assert only(parse(record({"Records": [s3(key=encoded)]}))).image.key == key  # type: ignore[union-attr]


def test_a_notification_delivered_twice_is_one_event() -> None:
    assert (
        only(parse(record({"Records": [AWS]}))).id == only(parse(record({"Records": [{**AWS, "awsRegion": "x"}]}))).id
    )


def test_writing_an_object_again_is_another_event() -> None:
    unversioned = [s3(versionId=None, sequencer=each) for each in ("01", "02")]
    versions = [s3(versionId=each) for each in ("v1", "v2")]
    ids = {only(parse(record({"Records": [each]}))).id for each in unversioned + versions}
    assert len(ids) == 4


def test_event_ids_do_not_run_bucket_and_key_together() -> None:
    one = {**AWS, "s3": {**AWS["s3"], "bucket": {"name": "a"}, "object": {"key": "b/c", "versionId": "1"}}}
    two = {**AWS, "s3": {**AWS["s3"], "bucket": {"name": "a"}, "object": {"key": "b", "versionId": "c/1"}}}
    assert only(parse(record({"Records": [one]}))).id != only(parse(record({"Records": [two]}))).id


def cloud_event(data: Any, **attributes: Any) -> CloudEvent:
    base = {"id": "ce-1", "source": "/generator", "type": "image.made", "time": datetime(2026, 2, 1, tzinfo=UTC)}
    return CloudEvent({**base, "datacontenttype": "application/json", **attributes}, data)


def sent(message: KafkaMessage) -> Record:
    return record(message.value, message.headers)


BARE = {name: value for name, value in EVENT.items() if name not in ("id", "occurred_at")}


@pytest.mark.parametrize("mode", [to_structured_event, to_binary_event])
class TestCloudEvents:
    """Messages as the CloudEvents SDK writes them, in both content modes."""

    def test_data_that_is_whole_keeps_its_own_id_and_time(self, mode: Any) -> None:
        assert parse(sent(mode(cloud_event(EVENT)))) == parse(record(EVENT))

    def test_source_and_id_stand_in_for_an_absent_id_and_the_time_for_an_absent_time(self, mode: Any) -> None:
        event = only(parse(sent(mode(cloud_event(BARE)))))
        assert event.id.startswith("ce-")
        assert event.occurred_at == datetime(2026, 2, 1, tzinfo=UTC)
        assert event.id == only(parse(sent(mode(cloud_event(BARE, subject="again"))))).id
        assert event.id != only(parse(sent(mode(cloud_event(BARE, source="/other"))))).id

    def test_the_data_may_be_an_s3_notification(self, mode: Any) -> None:
        parsed = parse(sent(mode(cloud_event({"Records": [AWS, s3("ObjectRemoved:Delete")]}))))
        assert parsed.ignored == 1
        assert only(parsed).id == only(parse(record({"Records": [AWS]}))).id

    def test_the_data_may_be_one_record_of_an_s3_notification(self, mode: Any) -> None:
        assert parse(sent(mode(cloud_event(AWS)))) == parse(record({"Records": [AWS]}))

    def test_data_of_no_known_kind_is_refused(self, mode: Any) -> None:
        with pytest.raises(MalformedRecord, match="none of the shapes that are known"):
            parse(sent(mode(cloud_event({"hello": "world"}))))


def test_both_modes_give_the_same_event() -> None:
    event = cloud_event(BARE)
    assert parse(sent(to_binary_event(event))) == parse(sent(to_structured_event(event)))


def test_structured_data_may_be_base64() -> None:
    envelope = {
        "specversion": "1.0",
        "id": "1",
        "source": "/s",
        "type": "t",
        "data_base64": "eyJFdmVudCI6InMzOlRlc3RFdmVudCJ9",
    }
    headers = {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    assert parse(record(envelope, headers)) == Parsed((), ignored=1)


def test_the_content_type_decides_before_the_headers_of_binary_mode() -> None:
    structured = to_structured_event(cloud_event(EVENT))
    assert only(parse(record(structured.value, {"ce_specversion": b"1.0", **structured.headers}))).id == "event-1"


def test_a_value_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedRecord, match="has 11 bytes; at most 10") as refused:
        parse(record(b"x" * 11), max_bytes=10)
    assert refused.value.reason is FailureReason.EVENT_TOO_LARGE


def test_many_unknown_keys_cost_one_short_line() -> None:
    hostile = {**EVENT, **{f"k{number}": 1 for number in range(50_000)}}
    with pytest.raises(MalformedRecord, match="50000 problems") as refused:
        parse(record(hostile))
    assert len(refused.value.message) < 200


def test_a_value_of_more_keys_than_any_event_has_is_refused_before_each_is_told() -> None:
    hostile = {**EVENT, **{f"k{number}": 1 for number in range(100_000)}}
    with pytest.raises(MalformedRecord, match="more than 100000 colons") as refused:
        parse(record(hostile))
    assert refused.value.reason is FailureReason.EVENT_TOO_LARGE
