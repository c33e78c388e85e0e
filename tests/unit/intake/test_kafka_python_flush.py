"""What kafka-python's `flush` does when a batch is split, in the library as it is and in ours; no broker."""

from types import SimpleNamespace
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.errors import UnknownError
from kafka.producer.record_accumulator import RecordAccumulator

from worker.intake.kafka_python_fixes import FixedProducer

P0 = TopicPartition("images", 0)


def _producer_that_splits(kind: type) -> tuple[Any, Any]:
    """A producer whose only batch is split while somebody waits for it, and the future of that batch's first record."""
    accumulator = RecordAccumulator(batch_size=1_000_000)
    future = accumulator.append(P0, 0, b"key", b"value", [])[0]
    accumulator.append(P0, 0, b"key", b"value", [])
    (batch,) = accumulator._incomplete.all()
    batch.records.close()
    accumulator._batches[P0].clear()
    accumulator.split_and_reenqueue(batch)
    accumulator.deallocate(batch)
    halves = accumulator._incomplete.all()
    for half in halves:
        half.complete(0, -1)
    seen = iter([[batch], halves])
    accumulator._incomplete = SimpleNamespace(all=lambda: next(seen))
    producer = object.__new__(kind)
    producer._accumulator = accumulator
    producer._sender = SimpleNamespace(wakeup=lambda: None)
    producer.config = {"client_id": "test"}
    producer._closed = True
    return producer, future


def test_the_library_fails_a_flush_when_a_batch_is_split() -> None:
    producer, _ = _producer_that_splits(KafkaProducer)
    with pytest.raises(UnknownError):
        producer.flush(1.0)


def test_our_flush_waits_for_the_halves_of_a_split_batch() -> None:
    producer, future = _producer_that_splits(FixedProducer)
    producer.flush(1.0)
    assert future.succeeded()
