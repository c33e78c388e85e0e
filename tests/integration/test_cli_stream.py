"""What commands may expect of a stream, on Kafka and on the embedded log."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import pytest
from kafka import KafkaProducer

from ops.dev.ports import free_ports
from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic
from worker.cli.options import Place
from worker.cli.stream import Stream, open_stream
from worker.intake.log import LogError
from worker.settings import KafkaSettings, Settings, TopicSettings


@pytest.fixture(params=["embedded", "kafka"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "embedded":
        return Place(Settings(), tmp_path / "data")
    server: KafkaServer = request.getfixturevalue("kafka_server")
    new_topic: NewTopic = request.getfixturevalue("new_topic")
    topics = TopicSettings(**{name: new_topic() for name in TopicSettings.model_fields})
    return Place(Settings(kafka=KafkaSettings(bootstrap_servers=server.bootstrap_servers, topics=topics)), None)


@pytest.fixture
def stream(place: Place) -> Iterator[Stream]:
    with closing(open_stream(place)) as opened:
        yield opened


def images(place: Place) -> str:
    return place.settings.kafka.topics.images


def publish(stream: Stream, *values: bytes, key: bytes = b"k") -> None:
    for value in values:
        stream.publish(key, value)
    stream.flush()


def everything(stream: Stream, topic: str) -> list[bytes | None]:
    return [record.value for record in stream.read(topic, from_beginning=True, follow=False)]


def test_what_was_published_is_read_from_the_beginning_to_the_end(place: Place, stream: Stream) -> None:
    publish(stream, b"1", b"2", b"3")

    assert everything(stream, images(place)) == [b"1", b"2", b"3"]


def test_an_empty_topic_ends_at_once(place: Place, stream: Stream) -> None:
    assert everything(stream, images(place)) == []


def test_many_events_arrive_each_once(place: Place, stream: Stream) -> None:
    for number in range(2500):
        stream.publish(str(number % 50).encode(), str(number).encode())
    stream.flush()

    assert sorted(int(value or b"") for value in everything(stream, images(place))) == list(range(2500))


def test_a_follower_that_starts_now_sees_only_what_comes(place: Place, stream: Stream) -> None:
    publish(stream, b"old")
    seen: list[bytes | None] = []
    started = threading.Event()

    def follow() -> None:
        with closing(open_stream(place)) as other:
            records = other.read(images(place), from_beginning=False, follow=True)
            started.set()
            seen.extend(record.value for record in islice(records, 2))

    thread = threading.Thread(target=follow)
    thread.start()
    started.wait(10)
    # The follower takes its position with its first read; until then it may miss events, so they keep coming.
    while thread.is_alive():
        publish(stream, b"new")
        thread.join(0.2)

    assert seen == [b"new", b"new"]


def test_a_follower_waits_for_more_after_the_end(place: Place, stream: Stream) -> None:
    publish(stream, b"1")
    records = stream.read(images(place), from_beginning=True, follow=True)
    assert next(records).value == b"1"

    publish(stream, b"2")
    assert next(records).value == b"2"


def test_an_unknown_topic_is_an_error_that_says_what_to_do(stream: Stream) -> None:
    with pytest.raises(LogError, match="sluice topics create"):
        everything(stream, "no-such-topic")


def test_aborted_records_and_transaction_markers_are_passed_over(
    kafka_server: KafkaServer, new_topic: NewTopic, unique_name: str
) -> None:
    topics = TopicSettings(verdicts=new_topic(partitions=1))
    kafka = KafkaSettings(bootstrap_servers=kafka_server.bootstrap_servers, topics=topics)
    producer = KafkaProducer(bootstrap_servers=kafka_server.bootstrap_servers, transactional_id=unique_name)
    producer.init_transactions()

    def transact(value: bytes, end: Callable[[], None]) -> None:
        producer.begin_transaction()
        producer.send(topics.verdicts, value=value)
        producer.flush()
        end()

    transact(b"committed", producer.commit_transaction)
    transact(b"aborted", producer.abort_transaction)
    producer.close()

    with closing(open_stream(Place(Settings(kafka=kafka), None))) as stream:
        assert everything(stream, topics.verdicts) == [b"committed"]


@pytest.mark.timeout(30)
def test_a_broker_that_is_not_there_is_an_error_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.intake.kafka_connection.BOOTSTRAP_MS", 1000)
    kafka = KafkaSettings(bootstrap_servers=f"127.0.0.1:{free_ports(1)[0]}")

    with closing(open_stream(Place(Settings(kafka=kafka), None))) as stream:
        with pytest.raises(LogError, match=r"kafka\.bootstrap_servers"):
            publish(stream, b"1")
        with pytest.raises(LogError, match=r"kafka\.bootstrap_servers"):
            everything(stream, "images.in")
