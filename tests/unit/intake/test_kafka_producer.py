"""What a transaction that fails leaves behind: nothing, or Fenced where that cannot be known."""

from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.errors import IllegalStateError, KafkaError, KafkaTimeoutError, ProducerFencedError
from kafka.structs import ConsumerGroupMetadata

from worker.intake import kafka_producer
from worker.intake.kafka_producer import Producer, for_one_worker
from worker.intake.log import CommitFailed, Fenced, Output, Partition
from worker.settings import KafkaSettings

GROUP = ConsumerGroupMetadata("g", 3, "m1", None)


class Acked:
    """A send's future."""

    def __init__(self, exception: Exception | None = None) -> None:
        self.exception = exception

    def succeeded(self) -> bool:
        return self.exception is None

    def failed(self) -> bool:
        return self.exception is not None


class Library:
    """kafka-python's producer, as far as a transaction goes; `faults` names the calls that fail."""

    opened: list["Library"]
    faults: dict[str, Exception]

    def __init__(self, **options: Any) -> None:
        self.options = options
        self.calls: list[str] = []
        self.offsets: dict[TopicPartition, OffsetAndMetadata] = {}
        self.opened.append(self)

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.opened.index(self) == 0 and name in self.faults:
            raise self.faults[name]

    def init_transactions(self) -> None:
        self._call("init")

    def begin_transaction(self) -> None:
        self._call("begin")

    def partitions_for(self, topic: str) -> set[int]:
        return {0, 1, 2}

    def send(self, topic: str, *_: Any) -> Acked:
        return Acked(self.faults.get("ack") if self is self.opened[0] else None)

    def flush(self, timeout: float) -> None:
        self._call("flush")

    def send_offsets_to_transaction(self, offsets: Any, group: Any) -> None:
        self._call("offsets")

    def commit_transaction(self) -> None:
        self._call("commit")

    def abort_transaction(self) -> None:
        self._call("abort")

    def discard(self) -> None:
        self.calls.append("discard")


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> type[Library]:
    Library.opened, Library.faults = [], {}
    monkeypatch.setattr(kafka_producer, "FixedProducer", Library)
    return Library


def commit(producer: Producer) -> None:
    producer.send_in_transaction([Output("verdicts", b"v")], {Partition("images", 0): (1, "note")}, GROUP)


def test_a_commit_sends_outputs_and_offsets_in_one_transaction(library: type[Library]) -> None:
    commit(Producer(KafkaSettings()))
    assert library.opened[0].calls == ["init", "begin", "flush", "offsets", "commit"]


def test_a_transaction_that_fails_is_aborted_and_the_producer_goes_on(library: type[Library]) -> None:
    producer = Producer(KafkaSettings())
    library.faults = {"offsets": KafkaError("not now")}
    with pytest.raises(CommitFailed, match="not now"):
        commit(producer)
    assert library.opened[0].calls[-1] == "abort"
    library.faults = {}
    commit(producer)
    assert len(library.opened) == 1


def test_where_the_abort_fails_a_producer_of_the_same_name_takes_over(library: type[Library]) -> None:
    producer = Producer(KafkaSettings())
    library.faults = {"ack": KafkaError("epoch"), "abort": IllegalStateError("the broker has aborted it")}
    with pytest.raises(CommitFailed, match="epoch"):
        commit(producer)
    first, second = library.opened
    assert first.calls[-1] == "discard"
    assert second.options["transactional_id"] == first.options["transactional_id"]
    commit(producer)
    assert second.calls == ["init", "begin", "flush", "offsets", "commit"]


def test_a_flush_ends_when_an_output_has_failed_though_others_will_never_be_answered(
    library: type[Library], monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = Producer(KafkaSettings())
    library.faults = {"ack": KafkaError("epoch"), "flush": KafkaTimeoutError()}
    with pytest.raises(CommitFailed, match="epoch"):
        commit(producer)
    assert library.opened[0].calls.count("flush") == 1


def test_a_commit_whose_answer_was_lost_has_an_unknown_outcome(library: type[Library]) -> None:
    producer = Producer(KafkaSettings())
    library.faults = {"commit": KafkaError("connection lost")}
    with pytest.raises(Fenced, match="unknown"):
        commit(producer)


@pytest.mark.parametrize("call", ["begin", "offsets", "abort"])
def test_a_worker_whose_transactional_id_was_taken_does_not_take_it_back(library: type[Library], call: str) -> None:
    producer = Producer(KafkaSettings())
    library.faults = {call: ProducerFencedError()} | ({"ack": KafkaError("x")} if call == "abort" else {})
    with pytest.raises(Fenced, match="another worker"):
        commit(producer)
    assert len(library.opened) == 1


def test_the_transactional_id_is_the_same_after_a_restart_where_the_worker_has_a_name(library: type[Library]) -> None:
    for _ in range(2):
        Producer(KafkaSettings(group_id="g", group_instance_id="worker-1"))
    assert [opened.options["transactional_id"] for opened in library.opened] == ["g-worker-1"] * 2


def test_a_worker_keeps_its_transactional_id_when_it_opens_the_log_again(library: type[Library]) -> None:
    settings = for_one_worker(KafkaSettings(group_id="g"))
    for _ in range(2):
        Producer(settings)
    first, second = (opened.options["transactional_id"] for opened in library.opened)
    assert first == second
    assert for_one_worker(KafkaSettings(group_id="g")).transactional_id != first, "another worker has another"
