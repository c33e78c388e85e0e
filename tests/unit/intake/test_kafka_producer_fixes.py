"""Faults of kafka-python's producer that we fix, shown in the library as it is and gone in ours; no broker.

See test_kafka_python_fixes.py, which has those of its consumer.
"""

from types import SimpleNamespace
from typing import Any

from kafka import KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError
from kafka.net.compat import KafkaNetClient
from kafka.producer.sender import Sender
from kafka.producer.transaction_manager import AddOffsetsToTxnHandler, TransactionManager, TransactionState
from kafka.structs import ConsumerGroupMetadata

from worker.intake.kafka_python_fixes import FixedClient, FixedProducer, FixedTransactionManager

P0 = TopicPartition("images", 0)


# -- fault 2: offsets of an aborted transaction ------------------------------------------------------------------------


def offsets_left_after_an_abort(kind: type[TransactionManager]) -> dict[TopicPartition, Any]:
    manager = kind(transactional_id="t", api_version=(4, 1))
    manager._current_state = TransactionState.READY
    manager.begin_transaction()
    offsets = {P0: OffsetAndMetadata(7, "", -1)}
    handler = AddOffsetsToTxnHandler(manager, ConsumerGroupMetadata("g", 1, "m", None), offsets)
    handler.handle_response(SimpleNamespace(error_code=0))  # the offsets are now to be committed; their request fails
    manager.begin_abort()
    manager._complete_transaction()
    return dict(manager._pending_txn_offset_commits)


def test_the_library_keeps_the_offsets_of_an_aborted_transaction_for_the_next_one() -> None:
    assert offsets_left_after_an_abort(TransactionManager) != {}


def test_our_producer_forgets_the_offsets_of_an_aborted_transaction() -> None:
    assert offsets_left_after_an_abort(FixedTransactionManager) == {}


# -- fault 9: requests that are forgotten when a broker is away --------------------------------------------------------


def request_is_tried_again(kind: type[KafkaNetClient]) -> bool:
    manager = TransactionManager(transactional_id="t", api_version=(4, 1))
    manager._transaction_coordinator = "coordinator-1"
    request = AddOffsetsToTxnHandler(manager, ConsumerGroupMetadata("g", 1, "m", None), {})
    manager._enqueue_request(request)
    client = kind.__new__(kind)
    client._manager = SimpleNamespace(_conns={})
    client.is_ready = lambda _: False
    client.maybe_connect = lambda _: None
    sender = Sender.__new__(Sender)
    sender.config = {"request_timeout_ms": 30_000, "client_id": "c", "transactional_id": "t"}
    sender._transaction_manager, sender._client = manager, client
    sender._accumulator = SimpleNamespace(has_incomplete=False)
    sender._running, sender._force_close = True, False
    sender._maybe_send_pending_request()
    return request in [waiting for _, _, waiting in manager._pending_requests]


def test_the_library_forgets_a_request_when_its_broker_cannot_be_reached() -> None:
    assert not request_is_tried_again(KafkaNetClient)


def test_our_producer_tries_a_request_again_when_its_broker_cannot_be_reached() -> None:
    assert request_is_tried_again(FixedClient)


# -- fault 10: a producer that sends on after it was closed ------------------------------------------------------------


class RunningSender:
    def __init__(self) -> None:
        self.runs = True

    def force_close(self) -> None:
        self.runs = False

    def join(self, _: float) -> None: ...


def sends_on_after_its_end(kind: type[KafkaProducer]) -> bool:
    """A producer is ended while records wait that no broker takes."""
    producer = kind.__new__(kind)
    producer.config, producer._metrics, producer._cleanup, producer._closed = {"client_id": "c"}, None, None, False
    producer._sender = sender = RunningSender()
    producer.flush = _times_out
    try:
        if isinstance(producer, FixedProducer):
            producer.discard()
        else:
            producer.close(timeout=0)
    except KafkaTimeoutError:
        pass
    finally:
        producer._closed = True  # or its destructor would close it again
    return sender.runs


def _times_out(timeout: float | None = None) -> None:
    raise KafkaTimeoutError


def test_the_library_sends_on_after_a_close_that_timed_out() -> None:
    assert sends_on_after_its_end(KafkaProducer)


def test_our_producer_sends_nothing_after_its_end() -> None:
    assert not sends_on_after_its_end(FixedProducer)
