"""Records that left the log before they were judged are told, and only skipped when somebody says so."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from typer.testing import CliRunner

from ops.dev.servers import KafkaServer
from tests.conftest import NewTopic
from worker.cli.main import app
from worker.intake import kafka_gaps, kafka_open_transactions
from worker.intake.kafka_client import open_kafka_log
from worker.intake.log import Gap, Log, Partition, Poll, Record
from worker.intake.lost_records import accept, find_lost
from worker.preflight import CheckStatus, check_servers
from worker.settings import KafkaSettings, Settings, TelemetrySettings


class Reading:
    """What a member of the group gets from the log."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.records: list[Record] = []
        self.gaps: list[Gap] = []

    def until(self, true: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            poll: Poll = self.log.poll(0.1)
            self.records.extend(poll.records)
            self.gaps.extend(poll.gaps)
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"

    def offsets(self) -> list[int]:
        return [record.offset for record in self.records]


@pytest.fixture(autouse=True)
def _ask_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_gaps, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(kafka_open_transactions, "STILL_SECONDS", 0.5)


@pytest.fixture(params=["kafka-python", "librdkafka"])
def settings(
    request: pytest.FixtureRequest, kafka_server: KafkaServer, new_topic: NewTopic, unique_name: str
) -> KafkaSettings:
    topics = {name: new_topic(partitions=1) for name in ("images", "verdicts", "review", "dead")}
    return KafkaSettings.model_validate(
        {
            "client": request.param,
            "bootstrap_servers": kafka_server.bootstrap_servers,
            "group_id": unique_name,
            "topics": topics,
            "session_timeout_seconds": 6,
        }
    )


def _send(settings: KafkaSettings, count: int) -> None:
    with KafkaProducer(bootstrap_servers=settings.bootstrap_servers) as producer:
        for number in range(count):
            producer.send(settings.topics.images, str(number).encode())
        producer.flush()


@contextmanager
def _reading(settings: KafkaSettings) -> Iterator[Reading]:
    log = open_kafka_log(settings, TelemetrySettings(), topics=[settings.topics.images])
    try:
        yield Reading(log)
    finally:
        log.close()


@pytest.fixture
def partition(settings: KafkaSettings) -> Partition:
    """Ten records, of which the group has judged three."""
    partition = Partition(settings.topics.images, 0)
    _send(settings, 10)
    with _reading(settings) as reading:
        reading.until(lambda: len(reading.records) == 10, "all are read, from the first")
        assert reading.offsets() == list(range(10))
        reading.log.commit([], {partition: 3})
    return partition


def _delete_before(settings: KafkaSettings, offset: int) -> None:
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        admin.delete_records({TopicPartition(settings.topics.images, 0): offset})


def test_deleted_records_stop_their_partition_until_the_loss_is_accepted(
    settings: KafkaSettings, partition: Partition
) -> None:
    _delete_before(settings, 7)
    with _reading(settings) as reading:
        reading.until(lambda: bool(reading.log.health_problems()), "the gap is told")
        (problem,) = reading.log.health_problems()
        assert "offsets 3 to 6 were deleted before they were judged (4 records)" in problem
        assert "sluice topics accept-loss" in problem
        _send(settings, 1)
        reading.until(lambda: True, "")
        time.sleep(1.0)
        assert reading.log.poll(0.1).records == ()
        wrong = [f for f in check_servers(Settings(kafka=settings)) if f.status is CheckStatus.WRONG]
        assert any("offsets 3 to 6" in finding.detail for finding in wrong), "the doctor tells it too"

        accept(settings, find_lost(settings))
        reading.until(lambda: len(reading.records) == 4, "what is there is read")
        assert reading.offsets() == [7, 8, 9, 10]
        assert reading.gaps == [Gap(partition, 3, 7)]
        assert reading.log.health_problems() == ()


def test_by_the_setting_continue_lost_records_are_counted_and_reading_goes_on(
    settings: KafkaSettings, partition: Partition
) -> None:
    _delete_before(settings, 7)
    with _reading(settings.model_copy(update={"lost_records": "continue"})) as reading:
        reading.until(lambda: len(reading.records) == 3, "what is there is read")
        assert reading.offsets() == [7, 8, 9]
        assert reading.gaps == [Gap(partition, 3, 7)]
        assert reading.log.health_problems() == ()


def test_records_that_are_deleted_under_a_reader_are_told_too(settings: KafkaSettings, partition: Partition) -> None:
    with _reading(settings) as reading:
        reading.until(lambda: len(reading.records) == 7, "the rest is read")
        reading.log.pause({partition})
        time.sleep(0.5)
        _send(settings, 5)
        _delete_before(settings, 13)
        reading.log.pause(set())
        reading.until(
            lambda: bool(reading.log.health_problems()) or len(reading.records) == 12, "what was deleted is told"
        )
        if len(reading.records) < 12:  # else they had been fetched before they were deleted
            assert "were deleted before they were judged" in reading.log.health_problems()[0]


def _create_again(settings: KafkaSettings) -> None:
    """Deletes the images topic and creates it again; the group's offset stays, as when a worker that drains commits
    once more."""
    partition = TopicPartition(settings.topics.images, 0)
    with KafkaAdminClient(bootstrap_servers=settings.bootstrap_servers) as admin:
        offset = admin.list_group_offsets(settings.group_id)[settings.group_id][partition]
        admin.delete_topics([partition.topic])
        time.sleep(1.0)
        admin.create_topics({partition.topic: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True)
        admin.alter_group_offsets(settings.group_id, {partition: offset})


def test_a_topic_that_was_created_again_is_not_read_from_an_offset_of_the_old_one(
    settings: KafkaSettings, partition: Partition
) -> None:
    _create_again(settings)
    with _reading(settings) as reading:
        reading.until(lambda: bool(reading.log.health_problems()), "the gap is told")
        assert "the topic was deleted and created again" in reading.log.health_problems()[0]
        accept(settings, find_lost(settings))
        _send(settings, 2)
        reading.until(lambda: len(reading.records) == 2, "the new topic is read from its beginning")
        assert reading.offsets() == [0, 1]


def test_a_topic_that_was_created_again_and_has_grown_past_the_old_offset_is_read_from_its_beginning(
    settings: KafkaSettings, partition: Partition
) -> None:
    _create_again(settings)
    _send(settings, 8)
    with _reading(settings) as reading:
        reading.until(lambda: bool(reading.log.health_problems()), "the new topic is noticed by its id")
        (problem,) = reading.log.health_problems()
        assert "deleted and created again after the group had read to offset 3" in problem
        assert reading.records == []
        assert [lost.is_new_topic for lost in find_lost(settings)] == [True], "the command and the doctor tell it too"
        accept(settings, find_lost(settings))
        reading.until(lambda: len(reading.records) == 8, "the new topic is read from its beginning")
        assert reading.offsets() == list(range(8))
        reading.log.commit([], {partition: 5})
    assert find_lost(settings) == ()
    with _reading(settings) as reading:
        reading.until(lambda: len(reading.records) == 3, "the offset counts, as it belongs to this topic")
        assert reading.offsets() == [5, 6, 7]


def test_the_command_names_the_loss_and_accepts_it_when_told_to(
    settings: KafkaSettings, partition: Partition, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "SLUICE_KAFKA__BOOTSTRAP_SERVERS": settings.bootstrap_servers,
        "SLUICE_KAFKA__GROUP_ID": settings.group_id,
        "SLUICE_KAFKA__TOPICS__IMAGES": settings.topics.images,
    }.items():
        monkeypatch.setenv(name, value)
    command = ["topics", "accept-loss", "--config", "/dev/null"]
    runner = CliRunner()
    assert "no records were lost" in runner.invoke(app, command).output
    _delete_before(settings, 7)
    refused = runner.invoke(app, command, input="n\n")
    assert refused.exit_code == 1
    assert "offsets 3 to 6" in refused.output
    assert runner.invoke(app, [*command, "--yes"]).exit_code == 0
    with _reading(settings) as reading:
        reading.until(lambda: len(reading.records) == 3, "what is there is read")
        assert reading.gaps == [Gap(partition, 3, 7)]


def test_an_open_transaction_that_holds_a_partition_is_named_and_is_no_fault_of_the_worker(
    settings: KafkaSettings, partition: Partition, unique_name: str
) -> None:
    foreign = KafkaProducer(bootstrap_servers=settings.bootstrap_servers, transactional_id=f"{unique_name}-foreign")
    try:
        foreign.init_transactions()
        foreign.begin_transaction()
        foreign.send(partition.topic, b"not committed yet")
        foreign.flush()
        _send(settings, 2)
        with _reading(settings) as reading:
            reading.until(lambda: bool(reading.log.notes()), "the transaction is named")
            (note,) = reading.log.notes()
            assert f"transactional id {unique_name}-foreign has a transaction open since offset 10" in note
            assert reading.log.lag().held == {partition}
            assert reading.log.lag().by_partition == {partition: 3}
            assert reading.log.health_problems() == ()
            foreign.commit_transaction()
            reading.until(lambda: len(reading.records) == 10, "all is read once it is committed")
            reading.until(lambda: reading.log.notes() == (), "nothing holds it any longer")
    finally:
        foreign.close(timeout=5)
