"""Moved records travel in packs, and are read back as they were written one by one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.log import Output, OutputsTooLarge, Partition, Record
from worker.intake.packs import HEADER, MOST_BYTES, MOST_RECORDS, pack, unpack
from worker.intake.parse import MalformedRecord

SURPLUS = frozenset({"images.surplus", "images.surplus.long"})
headers = st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=9)), max_size=3).map(tuple)
outputs = st.builds(
    Output,
    st.sampled_from(["images.verdicts", *SURPLUS]),
    st.binary(max_size=40),
    st.none() | st.binary(max_size=9),
    headers.filter(lambda found: HEADER not in dict(found)),
)


def read(output: Output, offset: int = 7) -> list[Output]:
    """The outputs that a record carries."""
    record = Record(Partition(output.topic, 3), offset, output.value, output.key, output.headers, 1_000)
    unpacked = unpack(record)
    assert {(r.partition, r.offset, r.timestamp_ms) for r in unpacked} == {(record.partition, offset, 1_000)}
    return [Output(output.topic, r.value or b"", r.key, r.headers) for r in unpacked]  # type: ignore[arg-type]


@given(st.lists(outputs, max_size=150))
def test_packs_hold_each_output_once_in_order_and_other_outputs_are_left_alone(given_outputs: list[Output]) -> None:
    packed = pack(given_outputs, SURPLUS)
    for topic in ("images.verdicts", *SURPLUS):
        of_topic = [output for written in packed.outputs if written.topic == topic for output in read(written)]
        assert of_topic == [output for output in given_outputs if output.topic == topic]
    counted = Counter(written.topic for written in packed.outputs)
    assert all(counted[topic] <= sum(o.topic == topic for o in given_outputs) / MOST_RECORDS + 1 for topic in SURPLUS)


def test_a_pack_is_bounded_and_a_large_record_is_moved_by_itself() -> None:
    small, half, large = (Output("images.surplus", bytes(size)) for size in (10, MOST_BYTES // 2, MOST_BYTES))
    packed = pack([half, large, half, small, half], SURPLUS).outputs
    assert [len(read(output)) for output in packed] == [1, 2, 2]
    assert packed[0] == large
    assert max(len(output.value) for output in packed[1:]) < MOST_BYTES + 100
    assert [len(read(output)) for output in pack([small] * 250, SURPLUS).outputs] == [100, 100, 50]


def test_an_output_that_is_too_large_is_found_again_among_those_that_were_not_packed() -> None:
    verdict, moved = Output("images.verdicts", b"v"), Output("images.surplus", b"m")
    packed = pack([moved, verdict, moved, verdict], SURPLUS)
    found = packed.unpacked_error(OutputsTooLarge("too large", {1: 9}))
    assert isinstance(found, OutputsTooLarge)
    assert found.limits == {3: 9}
    found = packed.unpacked_error(OutputsTooLarge("too large", {1: 9, 2: 5}))
    assert not isinstance(found, OutputsTooLarge), "a pack cannot be shortened: the commit waits"
    assert str(found) == "too large"
    error = OutputsTooLarge("too large", {1: 9})
    assert pack([verdict, verdict], SURPLUS).unpacked_error(error) is error


@given(st.binary(max_size=60).filter(lambda value: value[:1] != b"\x91") | st.just(b"\x90"))
def test_a_value_that_is_no_pack_is_refused_by_name(value: bytes) -> None:
    record = Record(Partition("images.surplus", 0), 0, value, None, ((HEADER, b"1"),))
    with pytest.raises(MalformedRecord, match=HEADER):
        unpack(record)


def test_a_truncated_pack_is_refused() -> None:
    (packed,) = pack([Output("images.surplus", b"value")] * 3, SURPLUS).outputs
    with pytest.raises(MalformedRecord, match=HEADER):
        unpack(Record(Partition("images.surplus", 0), 0, packed.value[:-1], None, packed.headers))
