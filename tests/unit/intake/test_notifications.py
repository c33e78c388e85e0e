"""What is made of the notifications of object stores, in the shapes that their vendors document."""

import copy
import json
from typing import Any

import pytest

from schemas import FailureReason, HttpReference, ImageEvent, S3Reference
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, Parsed, parse

S3: dict[str, Any] = {
    "eventVersion": "2.1",
    "eventSource": "aws:s3",
    "awsRegion": "us-west-2",
    "eventTime": "1970-01-01T00:00:00.000Z",
    "eventName": "ObjectCreated:Put",
    "userIdentity": {"principalId": "AIDAJDPLRKLG7UEXAMPLE"},
    "requestParameters": {"sourceIPAddress": "127.0.0.1"},
    "responseElements": {"x-amz-request-id": "C3D13FE58DE4C810", "x-amz-id-2": "FMyUVURIY8"},
    "s3": {
        "s3SchemaVersion": "1.0",
        "configurationId": "testConfigRule",
        "bucket": {"name": "uploads", "ownerIdentity": {"principalId": "A3NL"}, "arn": "arn:aws:s3:::uploads"},
        "object": {"key": "a%2Bb.png", "size": 1024, "eTag": "d41d8cd98f00b204e9800998ecf8427e", "sequencer": "0055"},
    },
}
BRIDGE: dict[str, Any] = {
    "version": "0",
    "id": "17793124-05d4-b198-2fde-7ededc63b103",
    "detail-type": "Object Created",
    "source": "aws.s3",
    "account": "111122223333",
    "time": "2021-11-12T00:00:00Z",
    "region": "ca-central-1",
    "resources": ["arn:aws:s3:::uploads"],
    "detail": {
        "version": "0",
        "bucket": {"name": "uploads"},
        "object": {
            "key": "a+b%20.png",
            "size": 5,
            "etag": "b1946ac92492d2347c6235b4d2611184",
            "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
            "sequencer": "617f08299329d189",
        },
        "request-id": "N4N7GDK58NMKJ12R",
        "requester": "123456789012",
        "reason": "PutObject",
    },
}
SNS: dict[str, Any] = {
    "Type": "Notification",
    "MessageId": "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324",
    "TopicArn": "arn:aws:sns:us-west-2:123456789012:uploads",
    "Subject": "Amazon S3 Notification",
    "Message": json.dumps({"Records": [S3]}),
    "Timestamp": "2012-05-02T00:54:06.655Z",
    "SignatureVersion": "1",
}
R2: dict[str, Any] = {
    "account": "3f4b7e3dcab231cbfdaa90a6a28bd548",
    "action": "CopyObject",
    "bucket": "uploads",
    "object": {"key": "a+b.png", "size": 65536, "eTag": "c846ff7a18f28c2e262116d6e8719ef0"},
    "eventTime": "2024-05-24T19:36:44.379Z",
    "copySource": {"bucket": "my-bucket", "object": "my-original-object"},
}
GOOGLE: dict[str, Any] = {
    "specversion": "1.0",
    "id": "1234-1234-1234",
    "source": "//storage.googleapis.com/projects/_/buckets/uploads",
    "type": "google.cloud.storage.object.v1.finalized",
    "subject": "objects/a+b.png",
    "time": "2020-09-29T11:32:00.000Z",
    "datacontenttype": "application/json",
    "data": {
        "kind": "storage#object",
        "name": "a+b.png",
        "bucket": "uploads",
        "generation": "1601379120000000",
        "metageneration": "1",
        "contentType": "image/png",
        "timeCreated": "2020-09-29T11:32:00.000Z",
        "size": "352",
        "md5Hash": "1B2M2Y8AsgTpgAmY7PhCfg==",
        "etag": "CNHZkbuF4ugCEAE=",
    },
}
AZURE: dict[str, Any] = {
    "specversion": "1.0",
    "type": "Microsoft.Storage.BlobCreated",
    "source": "/subscriptions/s/resourceGroups/r/providers/Microsoft.Storage/storageAccounts/a",
    "id": "9aeb0fdf-c01e-0131-0922-9eb54906e209",
    "time": "2019-11-18T15:13:39.4589254Z",
    "subject": "blobServices/default/containers/uploads/blobs/a%2Bb.png",
    "data": {
        "api": "PutBlockList",
        "eTag": "0x8D76C39E4407333",
        "contentType": "image/png",
        "contentLength": 30699,
        "blobType": "BlockBlob",
        "url": "https://account.blob.core.windows.net/uploads/a%2Bb.png",
        "sequencer": "000000000000000000000000000099240000000000c41c18",
        "storageDiagnostics": {"batchId": "681fe319-3006-00a8-0022-9e7cde000000"},
    },
}


def read(value: Any, **headers: bytes) -> Parsed:
    pairs = tuple((name.replace("_type", "-type"), text) for name, text in headers.items())
    return parse(Record(Partition("images.in", 0), 7, json.dumps(value).encode(), headers=pairs))


def only(parsed: Parsed) -> ImageEvent:
    assert (len(parsed.events), parsed.ignored) == (1, 0)
    return parsed.events[0]


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with one value replaced, or removed where it is None."""
    result = copy.deepcopy(document)
    *above, last = path.split(".")
    inner = result
    for name in above:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return result


def refusal(value: Any) -> str:
    with pytest.raises(MalformedRecord) as caught:
        read(value)
    assert caught.value.reason is FailureReason.MALFORMED_EVENT
    return caught.value.message


def s3_of(source: str | None, key: str, **found: Any) -> dict[str, Any]:
    record = changed(changed(S3, "s3.object", {"key": key} | found), "eventSource", source)
    return {"Records": [record]}


@pytest.mark.parametrize(
    ("source", "written", "key"),
    [
        ("aws:s3", "a%2Bb.png", "a+b.png"),
        ("aws:s3", "a+b.png", "a b.png"),
        ("minio:s3", "folder%2Fa+b.png", "folder/a b.png"),
        ("seaweedfs:s3", "a%2Bb.png", "a+b.png"),
        ("ceph:s3", "a+b.png", "a+b.png"),
        ("ceph:s3", "a%20b.png", "a%20b.png"),
        ("ceph:s3", "ü b.png", "ü b.png"),
        ("other:s3", "plain.png", "plain.png"),
    ],
)
def test_a_key_is_decoded_where_its_store_encodes_keys(source: str, written: str, key: str) -> None:
    image = only(read(s3_of(source, written))).image
    assert isinstance(image, S3Reference)
    assert image.key == key


@pytest.mark.parametrize("source", ["other:s3", None])
def test_where_the_store_is_not_known_the_etag_says_which_object_is_meant(source: str | None) -> None:
    image = only(read(s3_of(source, "a+b.png", eTag="abc"))).image
    assert image == S3Reference(bucket="uploads", key="a b.png", etag="abc")
    assert "may be URL-encoded or not" in refusal(s3_of(source, "a+b.png"))


def test_an_event_of_event_bridge_is_read_with_its_key_as_it_is() -> None:
    event = only(read(BRIDGE))
    assert event.image == S3Reference(
        bucket="uploads",
        key="a+b%20.png",
        version_id="IYV3p45BT0ac8hjHg1houSdS1a.Mro8e",
        etag="b1946ac92492d2347c6235b4d2611184",
    )
    assert event.occurred_at.isoformat() == "2021-11-12T00:00:00+00:00"


@pytest.mark.parametrize("message", [{"Records": [S3]}, BRIDGE])
def test_a_notification_in_a_message_of_sns_is_read(message: dict[str, Any]) -> None:
    assert read(changed(SNS, "Message", json.dumps(message))).events == read(message).events


def test_a_notification_of_r2_is_read_with_its_key_as_it_is() -> None:
    assert only(read(R2)).image == S3Reference(bucket="uploads", key="a+b.png", etag="c846ff7a18f28c2e262116d6e8719ef0")


def test_an_event_of_google_cloud_storage_is_read_and_tells_its_object_by_the_hash() -> None:
    event = only(read(GOOGLE))
    assert event.image == S3Reference(bucket="uploads", key="a+b.png", etag="d41d8cd98f00b204e9800998ecf8427e")
    assert event.content_type == "image/png"
    assert only(read(changed(GOOGLE, "data.generation", "2"))).id != event.id


def test_a_composed_object_of_google_has_no_hash_and_is_read() -> None:
    assert only(read(changed(GOOGLE, "data.md5Hash", None))).image == S3Reference(bucket="uploads", key="a+b.png")


def test_an_event_of_azure_is_read_as_a_web_address_with_its_etag() -> None:
    event = only(read(AZURE))
    assert event.image == HttpReference(
        url="https://account.blob.core.windows.net/uploads/a%2Bb.png", etag="0x8D76C39E4407333"
    )


def test_the_batches_of_azure_are_read_one_by_one() -> None:
    deleted = changed(AZURE, "type", "Microsoft.Storage.BlobDeleted")
    parsed = read([AZURE, GOOGLE, deleted])
    assert parsed.events == (only(read(AZURE)), only(read(GOOGLE)))
    assert parsed.ignored == 1


@pytest.mark.parametrize("document", [GOOGLE, AZURE], ids=["google", "azure"])
def test_an_envelope_may_come_in_headers_or_without_a_content_type(document: dict[str, Any]) -> None:
    named = read(document, content_type=b"application/cloudevents+json; charset=utf-8")
    envelope = {f"ce_{name}": document[name].encode() for name in ("specversion", "id", "source", "type", "time")}
    binary = parse(
        Record(Partition("images.in", 0), 7, json.dumps(document["data"]).encode(), headers=tuple(envelope.items()))
    )
    assert read(document) == named == binary


@pytest.mark.parametrize("document", [BRIDGE, SNS, R2, GOOGLE, AZURE])
def test_a_notification_delivered_twice_is_one_event(document: dict[str, Any]) -> None:
    assert only(read(document)).id == only(read(copy.deepcopy(document))).id


@pytest.mark.parametrize(
    "document",
    [
        changed(BRIDGE, "detail-type", "Object Deleted"),
        changed(changed(BRIDGE, "detail.object.key", "folder/"), "detail.object.size", 0),
        changed(R2, "action", "DeleteObject"),
        changed(SNS, "Type", "SubscriptionConfirmation"),
        changed(GOOGLE, "type", "google.cloud.storage.object.v1.metadataUpdated"),
        changed(AZURE, "type", "Microsoft.Storage.BlobDeleted"),
        changed(AZURE, "data.contentLength", 0),
    ],
)
def test_what_tells_of_no_new_object_is_counted_and_ignored(document: dict[str, Any]) -> None:
    assert read(document) == Parsed((), ignored=1)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (changed(BRIDGE, "detail.object.key", None), "EventBridge event: detail.object.key: is missing"),
        (changed(BRIDGE, "time", "soon"), "EventBridge event: time: should be a valid datetime"),
        (changed(SNS, "Message", "hello"), "SNS message: Message: expected an S3 notification in JSON, got 'hello'"),
        (changed(SNS, "Message", json.dumps(SNS)), "SNS message: Message: expected an S3 notification"),
        (changed(R2, "object.key", None), "R2 notification: object.key: is missing"),
        (changed(R2, "eventTime", None), "R2 notification: eventTime: is missing"),
        (changed(GOOGLE, "data.name", None), "Google Cloud Storage event: name: is missing"),
        (changed(GOOGLE, "data.md5Hash", "?"), "Google Cloud Storage event: md5Hash: expected base64, got '?'"),
        (changed(AZURE, "data.url", None), "Azure Blob Storage event: url: is missing"),
        (changed(AZURE, "data.url", "ftp://x/a.png"), "Azure Blob Storage event: url: should match pattern"),
        (changed(AZURE, "time", None), "Azure Blob Storage event: CloudEvent: time: is missing"),
        ([AZURE] * 1001, "a batch of 1001 CloudEvents; expected at most 1000"),
    ],
)
def test_a_faulty_notification_is_refused_with_its_dialect_and_place(document: Any, says: str) -> None:
    assert says in refusal(document)


def test_an_unknown_shape_is_refused_with_the_dialects_that_are_known() -> None:
    message = refusal({"hello": "world"})
    for dialect in ("sluice.image-event/1", "AWS, MinIO, Ceph", "SNS", "EventBridge", "R2", "Google", "Azure"):
        assert dialect in message
