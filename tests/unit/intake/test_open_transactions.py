"""When a partition counts as held by another producer's transaction."""

from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError

from tests.unit.clock import Clock
from worker.intake.kafka_open_transactions import STILL_SECONDS, OpenTransactions
from worker.intake.log import Partition

P0 = TopicPartition("images", 0)


class Consumer:
    def __init__(self) -> None:
        self.readable = 5
        self.down = False
        self.asked = 0

    def end_offsets(self, partitions: list[TopicPartition], timeout_ms: int) -> dict[TopicPartition, int]:
        self.asked += 1
        if self.down:
            raise KafkaTimeoutError
        return dict.fromkeys(partitions, self.readable)


def _open() -> tuple[OpenTransactions, Consumer, Clock]:
    consumer, clock = Consumer(), Clock()
    return OpenTransactions(consumer, lambda _: "producer X has one open", clock), consumer, clock


def test_a_partition_that_stands_before_a_transaction_is_held_until_it_moves() -> None:
    transactions, consumer, clock = _open()
    transactions.observe({P0: 5})
    assert consumer.asked == 0, "a partition that has just been read is not looked into"
    clock.now = STILL_SECONDS
    transactions.observe({P0: 5})
    assert transactions.held == {Partition("images", 0)}
    assert "producer X has one open" in transactions.notes()[0]
    consumer.readable = 8
    clock.now += STILL_SECONDS
    transactions.observe({P0: 6})
    assert transactions.held == frozenset()
    assert transactions.notes() == ()


def test_a_partition_that_stands_though_it_could_be_read_is_not_held() -> None:
    transactions, consumer, clock = _open()
    consumer.readable = 9
    transactions.observe({P0: 5})
    clock.now = STILL_SECONDS
    transactions.observe({P0: 5})
    assert transactions.held == frozenset()


def test_a_partition_that_was_read_to_its_end_is_no_longer_held() -> None:
    transactions, _, clock = _open()
    transactions.observe({P0: 5})
    clock.now = STILL_SECONDS
    transactions.observe({P0: 5})
    transactions.observe({})
    assert transactions.held == frozenset()


def test_a_broker_that_does_not_answer_decides_nothing() -> None:
    transactions, consumer, clock = _open()
    transactions.observe({P0: 5})
    clock.now = STILL_SECONDS
    consumer.down = True
    transactions.observe({P0: 5})
    assert transactions.held == frozenset()
