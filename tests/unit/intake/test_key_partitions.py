"""Keys go to the partitions that other Kafka clients expect them in."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from worker.intake.key_partitions import LONGEST_KEY, partitions_of_keys

MANY = [f"event-{number}".encode() for number in range(3003)]


def by_kafka_python(keys: list[bytes], partitions: int) -> list[int]:
    return [(murmur2(key) & 0x7FFFFFFF) % partitions for key in keys]


@given(st.lists(st.binary(max_size=LONGEST_KEY + 8), max_size=20), st.integers(1, 1000))
def test_each_key_goes_where_kafka_pythons_own_partitioner_would_put_it(keys: list[bytes], partitions: int) -> None:
    assert partitions_of_keys(keys, partitions) == by_kafka_python(keys, partitions)


def test_three_thousand_keys_go_where_kafka_pythons_own_partitioner_would_put_them() -> None:
    assert partitions_of_keys(MANY, 12) == by_kafka_python(MANY, 12)


def test_keys_have_the_hashes_that_the_java_client_gives_them() -> None:
    """From Apache Kafka's `UtilsTest.testMurmur2`, as partitions of a topic with 2**31 - 1 partitions."""
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    most = 2**31 - 1
    assert partitions_of_keys(list(hashes), most) == [(number & 0x7FFFFFFF) % most for number in hashes.values()]


def test_a_long_key_does_not_make_the_others_take_its_memory() -> None:
    keys = [b"x" * 50_000, *MANY]
    expected = by_kafka_python(keys, 12)
    tracemalloc.start()
    try:
        assert partitions_of_keys(keys, 12) == expected
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
