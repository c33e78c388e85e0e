"""Values that a serializer of a schema registry has framed: read in order, held while their schema is not known."""

import contextlib
import io
import json
from collections.abc import Iterable
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.avro_values import AvroMismatch, UnusableSchema, avro_reader
from worker.intake.framed_records import FramedRecords
from worker.intake.log import Partition, Record
from worker.intake.parse import MalformedRecord, parse
from worker.intake.schema_frames import read_frame
from worker.intake.schema_registry import Schema

EVENT = {
    "schema": "sluice.image-event/1",
    "id": "event-1",
    "occurred_at": "2026-11-24T12:00:00Z",
    "image": {"kind": "s3", "bucket": "b", "key": "k"},
}
AVRO: dict[str, Any] = {
    "type": "record",
    "name": "ImageEvent",
    "fields": [
        {"name": "schema", "type": "string", "default": "sluice.image-event/1"},
        {"name": "id", "type": "string"},
        {"name": "occurred_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "tenant", "type": ["null", "string"], "default": None},
        {
            "name": "image",
            "type": [
                {
                    "type": "record",
                    "name": "S3",
                    "fields": [
                        {"name": "kind", "type": "string", "default": "s3"},
                        {"name": "bucket", "type": "string"},
                        {"name": "key", "type": "string"},
                    ],
                },
                {
                    "type": "record",
                    "name": "Inline",
                    "fields": [
                        {"name": "kind", "type": "string", "default": "inline"},
                        {"name": "bytes", "type": "bytes"},
                    ],
                },
            ],
        },
    ],
}
ONE, TWO = Partition("images", 0), Partition("images", 1)


def framed(schema_id: int, data: bytes) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big") + data


def avro(value: dict[str, Any], schema: Any = AVRO) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), value)
    return out.getvalue()


def avro_event(**changes: object) -> bytes:
    return avro({**EVENT, "occurred_at": 1_795_608_000_000, **changes})


class Registry:
    """Gives what it was told of."""

    def __init__(self) -> None:
        self.known: dict[int, Schema] = {}
        self.asked: set[int] = set()

    def schema(self, schema_id: int) -> Schema | None:
        self.asked.add(schema_id)
        return self.known.get(schema_id)

    def want_only(self, ids: Iterable[int]) -> None:
        self.asked &= set(ids)

    def trouble(self) -> str | None:
        return "the registry is away"


def record(value: bytes | None, offset: int = 0, partition: Partition = ONE) -> Record:
    return Record(partition, offset, value)


def test_json_in_a_frame_is_read_without_a_registry() -> None:
    (event,) = parse(record(framed(7, json.dumps(EVENT).encode()))).events
    assert event.id == "event-1"


def test_avro_without_a_registry_is_malformed_and_says_what_to_set() -> None:
    with pytest.raises(MalformedRecord, match=r"schema 7\) and is no JSON.*kafka\.schema_registry"):
        parse(record(framed(7, avro_event())))


def test_an_avro_event_is_read_as_its_json() -> None:
    registry = Registry()
    registry.known[7] = Schema("AVRO", avro_reader(json.dumps(AVRO)))
    inline = {"kind": "inline", "bytes": b"\x89PNG\xff"}
    values = [avro_event(), avro_event(id="event-2", tenant="t", image=("Inline", inline))]
    (first, second) = FramedRecords(registry).read([record(framed(7, value), at) for at, value in enumerate(values)])
    (event,) = parse(first).events
    assert (event.id, event.tenant, event.image.kind) == ("event-1", "default", "s3")
    assert event.occurred_at.isoformat() == "2026-11-25T12:00:00+00:00"
    (event,) = parse(second).events
    assert event.tenant == "t"
    assert event.image.bytes == b"\x89PNG\xff"  # type: ignore[union-attr]


def test_a_record_waits_for_its_schema_and_all_behind_it_in_its_partition_wait_too() -> None:
    registry = Registry()
    frames = FramedRecords(registry)
    plain = json.dumps(EVENT).encode()
    came = [record(plain, 0), record(framed(7, plain), 1), record(plain, 2), record(plain, 5, TWO)]
    assert [(r.partition, r.offset) for r in frames.read(came)] == [(ONE, 0), (TWO, 5)]
    assert frames.waiting == {ONE}
    assert frames.problems() == ("the registry is away",)
    assert frames.read([record(plain, 3)]) == []
    registry.known[7] = Schema("JSON")
    assert [r.offset for r in frames.read([])] == [1, 2, 3]
    assert frames.waiting == frozenset()
    assert frames.problems() == ()


def test_what_is_held_of_a_partition_that_was_taken_away_is_forgotten() -> None:
    registry = Registry()
    frames = FramedRecords(registry)
    frames.read([record(framed(7, b"{}"), 1), record(framed(8, b"{}"), 1, TWO)])
    frames.forget([ONE])
    assert registry.asked == {8}
    registry.known = {7: Schema("JSON"), 8: Schema("JSON")}
    assert [r.partition for r in frames.read([])] == [TWO]


@pytest.mark.parametrize(
    ("schema", "data"),
    [
        (Schema("AVRO", avro_reader(json.dumps(AVRO))), b"\x06"),
        (Schema("AVRO", avro_reader(json.dumps(AVRO))), avro_event() + b"left"),
        (Schema(None, problem="unknown"), b"anything"),
    ],
)
def test_a_value_that_does_not_fit_its_schema_is_passed_on_whole_and_becomes_a_dead_letter(
    schema: Schema, data: bytes
) -> None:
    registry = Registry()
    registry.known[7] = schema
    (read,) = FramedRecords(registry).read([record(framed(7, data))])
    assert read.value == framed(7, data)
    with pytest.raises(MalformedRecord, match="schema 7"):
        parse(read)


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "record", "name": "A", "fields": [{"name": "next", "type": ["null", "A"]}]}, "recursive"),
        ({"type": "array", "items": "null"}, "take no byte"),
        (
            {"type": "array", "items": {"type": "record", "name": "E", "fields": [{"name": "n", "type": "null"}]}},
            "take no byte",
        ),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "take no byte"),
        ("no JSON", "cannot be read"),
        ({"type": "nonsense"}, "cannot be read"),
    ],
)
def test_a_schema_with_which_few_bytes_could_take_for_ever_is_refused(schema: Any, told: str) -> None:
    with pytest.raises(UnusableSchema, match=told):
        avro_reader(schema if isinstance(schema, str) else json.dumps(schema))


@given(st.binary(max_size=200))
def test_whatever_bytes_come_they_are_read_or_do_not_fit(data: bytes) -> None:
    with contextlib.suppress(AvroMismatch):
        json.loads(avro_reader(json.dumps(AVRO))(data))


@given(st.one_of(st.none(), st.binary(max_size=50)))
def test_a_frame_is_told_from_other_values(value: bytes | None) -> None:
    frame = read_frame(value)
    if frame is not None:
        assert value == framed(frame.schema_id, frame.data)
