"""An event that is moved to another topic stays the same event, and remembers where it came from."""

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import HttpReference, ImageEvent, S3Reference, Source
from tests.unit.intake.member_bench import IN, Bench, FakeLog, FakeStore, event, http, records
from tests.unit.intake.pictures import png
from worker.intake.deferral import HEADER, Deferral, deferred_output, read_deferral
from worker.intake.log import Output, Partition, Record
from worker.intake.parse import parse

RETRY = Partition("images.retry.1", 0)
FIRST = Deferral(source=Source(topic="images.in", partition=3, offset=17, index=2), first_seen_ms=1_000)


def as_record(output: Output, partition: Partition = RETRY, offset: int = 0) -> Record:
    return Record(partition, offset, output.value, output.key, output.headers)


text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=40)
references = st.builds(S3Reference, bucket=st.just("a-bucket"), key=text) | st.just(
    HttpReference(url="https://images.example/1.png?a=b&c=ä")
)
events = st.builds(
    ImageEvent,
    id=text,
    occurred_at=st.datetimes(min_value=datetime(1971, 1, 1), timezones=st.just(UTC)),
    image=references,
    prompt=st.none() | text,
    priority=st.integers(0, 100),
)
deferrals = st.builds(
    Deferral,
    source=st.builds(Source, topic=text, partition=st.integers(0, 99), offset=st.integers(0), index=st.integers(0, 99)),
    first_seen_ms=st.integers(0, 2**50),
    due_ms=st.integers(0, 2**50),
    reason=st.text(max_size=50),
    retries=st.integers(0, 10),
    attempts=st.integers(0, 10),
    first_failed_ms=st.none() | st.integers(0, 2**50),
    probes=st.integers(0, 10),
    probed_since_ms=st.none() | st.integers(0, 2**50),
)


@given(events, deferrals)
def test_what_is_moved_is_read_back_as_it_was(moved: ImageEvent, deferral: Deferral) -> None:
    record = as_record(deferred_output(Record(IN, 5, b"...", b"key"), moved, deferral, RETRY.topic))
    assert parse(record).events == (moved,)
    assert read_deferral(record) == deferral
    assert record.key == b"key"


def test_headers_of_the_sender_stay_but_not_those_that_say_how_to_read_the_value() -> None:
    headers = (
        ("sluice-pack", b"1"),
        ("ce_id", b"1"),
        ("Content-Type", b"application/cloudevents+json"),
        ("trace", b"7"),
        ("empty", None),
    )
    (moved,) = parse(Record(IN, 0, event("a", http("a")))).events
    output = deferred_output(Record(IN, 0, b"", None, headers), moved, FIRST, RETRY.topic)
    assert output.headers[1:] == (("trace", b"7"), ("empty", b""))


def test_an_event_that_is_moved_again_has_one_header_of_ours() -> None:
    (moved,) = parse(Record(IN, 0, event("a", http("a")))).events
    once = as_record(deferred_output(Record(IN, 0, b""), moved, FIRST, RETRY.topic))
    twice = deferred_output(once, moved, FIRST.model_copy(update={"retries": 2}), "images.retry.2")
    assert [name for name, _ in twice.headers] == [HEADER]
    assert json.loads(twice.headers[0][1])["retries"] == 2


@pytest.mark.parametrize("value", [None, b"", b"{", b'{"source": 1}', b"\xff"])
def test_a_header_that_cannot_be_read_is_none(value: bytes | None) -> None:
    assert read_deferral(Record(RETRY, 0, b"", None, ((HEADER, value),))) is None


def judged(record: Record) -> Bench:
    bench = Bench(FakeLog([record], partitions=(record.partition,)), FakeStore({"http://images/a": png(9)}))
    bench.run_until(lambda: bench.log.offsets.get(record.partition) == record.offset + 1)
    return bench


def moved_record(name: str, **changes: int) -> Record:
    (moved,) = parse(Record(IN, 0, event(name, http("a")))).events
    output = deferred_output(Record(IN, 0, b""), moved, FIRST.model_copy(update=changes), RETRY.topic)
    return as_record(output)


def test_the_verdict_on_a_moved_event_names_the_place_where_it_first_stood() -> None:
    (verdict,) = judged(moved_record("a")).log.verdicts
    assert verdict["status"] == "scored"
    assert verdict["source"] == {"topic": "images.in", "partition": 3, "offset": 17, "index": 2}


def test_the_dead_letter_on_a_moved_event_names_the_place_where_it_first_stood() -> None:
    record = moved_record("a")
    broken = Bench(FakeLog([record], partitions=(RETRY,)), FakeStore({"http://images/a": b"no picture"}))
    broken.run_until(lambda: broken.log.offsets.get(RETRY) == 1)
    for topic in ("images.verdicts", "images.review", "images.dead"):
        (written,) = broken.log.written(topic)
        assert written["source"] == {"topic": "images.in", "partition": 3, "offset": 17, "index": 2}


def test_a_moved_event_gets_the_verdict_id_that_it_would_have_had() -> None:
    direct = Bench(FakeLog(records(event("a", http("a")))), FakeStore({"http://images/a": png(9)}))
    direct.run_to(1)
    (moved,) = judged(moved_record("a")).log.verdicts
    assert moved["verdict_id"] == direct.log.verdicts[0]["verdict_id"]


def test_a_record_in_a_retry_topic_without_our_header_is_judged_at_once_under_its_own_place() -> None:
    (verdict,) = judged(Record(RETRY, 0, event("a", http("a")))).log.verdicts
    assert verdict["status"] == "scored"
    assert verdict["source"] == {"topic": "images.retry.1", "partition": 0, "offset": 0, "index": 0}


def test_a_sender_cannot_give_an_event_another_place() -> None:
    """Whoever may write to the images topic may write headers, too."""
    forged = moved_record("a")._replace(partition=IN, offset=0)
    (verdict,) = judged(forged).log.verdicts
    assert verdict["source"] == {"topic": "images.in", "partition": 0, "offset": 0, "index": 0}


def test_the_age_of_a_moved_event_counts_from_when_it_was_first_seen() -> None:
    bench = Bench(FakeLog([], partitions=(RETRY,)), FakeStore({"http://images/a": png(9)}))
    bench.member._ledger.assign([RETRY])
    bench.member._admission.admit([moved_record("a")._replace(timestamp_ms=9_000)], now=0.0)
    assert bench.member._ledger.oldest_timestamp_ms() == 1_000
