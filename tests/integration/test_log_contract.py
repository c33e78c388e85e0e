"""What the intake may expect of a log, shown on each: the embedded one, and Kafka by both clients."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from ops.dev.servers import KafkaServer
from schemas import ImageEvent, S3Reference, Source
from worker.intake.deferral import Deferral, deferred_output, read_deferral
from worker.intake.kafka_client import open_kafka_log
from worker.intake.log import CommitFailed, Fenced, Log, LogError, Output, Partition, Record
from worker.intake.parse import canonical, parse
from worker.intake.sqlite_log import SqliteLog
from worker.intake.sqlite_topics import SqliteTopics
from worker.settings import KafkaSettings, TelemetrySettings

SESSION_SECONDS = 2.0
PATIENCE_SECONDS = 30.0
PARTITIONS = 4
MAX_BYTES = 8 * 1024 * 1024
KAFKA_CLIENTS = ("kafka-python", "librdkafka")
of_several_members = pytest.mark.parametrize("bench", KAFKA_CLIENTS, indirect=True)
"""On the embedded log a group has one member."""


class Bench(ABC):
    """One kind of log, with topics of its own: `images` and `later`, which members read, of four partitions and of
    one, and `verdicts` of one."""

    kind: str
    images: str
    verdicts: str
    later: str

    @abstractmethod
    def member(self, *more: str) -> Log:
        """One that reads `images` and the topics `more`."""

    @abstractmethod
    def member_of_missing_topic(self) -> Log: ...

    @abstractmethod
    def append(self, outputs: Sequence[Output]) -> None: ...

    @abstractmethod
    def committed_verdicts(self) -> list[bytes | None]:
        """What a careful reader sees in `verdicts`."""

    @abstractmethod
    def refused(self) -> Output:
        """An output that the log does not take."""

    @abstractmethod
    def options(self) -> Mapping[str, Any]:
        """What a member in another process needs."""

    def values(self, count: int) -> None:
        """Appends 0, 1, 2, … under thirteen keys."""
        self.append([Output(self.images, b"%d" % number, key=b"key-%d" % (number % 13)) for number in range(count)])

    def verdict(self, value: bytes) -> Output:
        return Output(self.verdicts, value)


class SqliteBench(Bench):
    kind = "sqlite"
    images = "images"
    verdicts = "verdicts"
    later = "later"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log.sqlite"
        self._topics = SqliteTopics(self._path)
        self._topics.create({self.images: PARTITIONS, self.verdicts: 1, self.later: 1})

    def member(self, *more: str) -> Log:
        return SqliteLog(self._path, topics=[self.images, *more], group_id="g")

    def member_of_missing_topic(self) -> Log:
        return SqliteLog(self._path, topics=["missing"], group_id="g")

    def append(self, outputs: Sequence[Output]) -> None:
        self._topics.append(outputs)

    def committed_verdicts(self) -> list[bytes | None]:
        return [record.value for record in self._topics.read({Partition(self.verdicts, 0): 0}, max_records=100_000)]

    def refused(self) -> Output:
        return Output("missing", b"")

    def options(self) -> Mapping[str, Any]:
        return {
            "path": str(self._path),
            "topics": [self.images],
            "group_id": "g",
        }


class KafkaBench(Bench):
    def __init__(self, client: str, server: KafkaServer, new_topic: Callable[..., str], group_id: str) -> None:
        self.kind = client
        self._bootstrap = server.bootstrap_servers
        self._group_id = group_id
        roomy = {"max.message.bytes": str(MAX_BYTES)}
        self.images = new_topic(PARTITIONS, roomy)
        self.verdicts = new_topic(1, roomy)
        self.later = new_topic(1, roomy)
        self._others = {"review": new_topic(1), "dead": new_topic(1)}

    def options(self) -> dict[str, Any]:
        return {
            "client": self.kind,
            "bootstrap_servers": self._bootstrap,
            "group_id": self._group_id,
            "session_timeout_seconds": SESSION_SECONDS,
            "max_message_bytes": MAX_BYTES,
            "topics": {"images": self.images, "verdicts": self.verdicts, **self._others},
        }

    def member(self, *more: str) -> Log:
        settings = KafkaSettings.model_validate(self.options())
        return open_kafka_log(settings, TelemetrySettings(), topics=[self.images, *more])

    def member_of_missing_topic(self) -> Log:
        return open_kafka_log(KafkaSettings.model_validate(self.options()), TelemetrySettings(), topics=["missing"])

    def append(self, outputs: Sequence[Output]) -> None:
        producer = KafkaProducer(bootstrap_servers=self._bootstrap, acks="all", max_request_size=MAX_BYTES)
        try:
            sent = [producer.send(o.topic, value=o.value, key=o.key, headers=list(o.headers)) for o in outputs]
            producer.flush()
            for future in sent:
                future.get(10)
        finally:
            producer.close()

    def committed_verdicts(self) -> list[bytes | None]:
        consumer = KafkaConsumer(
            bootstrap_servers=self._bootstrap,
            isolation_level="read_committed",
            enable_auto_commit=False,
            max_partition_fetch_bytes=MAX_BYTES,
        )
        try:
            partition = TopicPartition(self.verdicts, 0)
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            (end,) = consumer.end_offsets([partition]).values()
            values: list[bytes | None] = []
            deadline = time.monotonic() + PATIENCE_SECONDS
            while consumer.position(partition) < end and time.monotonic() < deadline:
                for records in consumer.poll(timeout_ms=200).values():
                    values += [record.value for record in records]
            return values
        finally:
            consumer.close()

    def refused(self) -> Output:
        return Output(self.verdicts, b"x" * (MAX_BYTES + 1))


@pytest.fixture(params=["sqlite", *KAFKA_CLIENTS])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Bench:
    if request.param == "sqlite":
        return SqliteBench(tmp_path)
    fixture = request.getfixturevalue
    return KafkaBench(request.param, fixture("kafka_server"), fixture("new_topic"), fixture("unique_name"))


class Member:
    """A log in use: what it owns and what it has received and not committed."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.owned: set[Partition] = set()
        self.revoked: set[Partition] = set()
        self.records: dict[Partition, list[Record]] = defaultdict(list)

    def turn(self) -> None:
        poll = self.log.poll(0.05)
        for partition in poll.lost | poll.revoked:
            self.owned.discard(partition)
        for partition in poll.lost:
            self.records.pop(partition, None)
        self.revoked |= poll.revoked
        self.owned |= poll.assigned
        for record in poll.records:
            assert record.partition in self.owned, "a record of a partition that was not assigned"
            self.records[record.partition].append(record)

    def release(self) -> None:
        for partition in self.revoked:
            self.records.pop(partition, None)
        self.log.release(self.revoked)
        self.revoked.clear()

    @property
    def received(self) -> list[Record]:
        return [record for records in self.records.values() for record in records]

    def offsets(self) -> dict[Partition, int]:
        return {partition: records[-1].offset + 1 for partition, records in self.records.items() if records}

    def commit_all(self, bench: Bench) -> None:
        self.log.commit([bench.verdict(record.value or b"") for record in self.received], self.offsets())
        self.records.clear()


@pytest.fixture
def join(bench: Bench) -> Iterator[Callable[..., Member]]:
    members: list[Member] = []

    def join(*more: str) -> Member:
        members.append(Member(bench.member(*more)))
        return members[-1]

    yield join
    for member in members:
        member.log.close()


def until(condition: Callable[[], object], *members: Member, release: bool = True) -> None:
    """Lets the members work until it is so; fails when that takes too long."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        for member in members:
            member.turn()
            if release and member.revoked:
                member.release()


def for_a_while(*members: Member, seconds: float = 1.0) -> None:
    deadline = time.monotonic() + seconds
    until(lambda: time.monotonic() >= deadline, *members)


Process = subprocess.Popen[str]


@pytest.fixture
def elsewhere(bench: Bench) -> Iterator[Callable[[], Process]]:
    """Starts a member in a process of its own (log_member.py)."""
    processes: list[Process] = []

    def start() -> Process:
        root = Path(__file__).parents[2]
        program = [sys.executable, str(Path(__file__).with_name("log_member.py"))]
        process = subprocess.Popen(
            [*program, bench.kind, json.dumps(bench.options()), bench.verdicts],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def line(process: Process) -> str:
    assert process.stdout is not None
    while (words := process.stdout.readline().strip()) and "[" in words:
        continue  # a log line
    return words


def receives(process: Process, count: int) -> None:
    while (words := line(process)) != f"received {count}":
        assert words.startswith("received"), f"the member said {words!r}"


def test_all_that_was_appended_is_received_in_order_of_its_keys(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(500)
    member = join()
    until(lambda: len(member.received) >= 500, member)

    assert sorted(int(record.value or b"") for record in member.received) == list(range(500))
    by_key: dict[bytes | None, list[int]] = defaultdict(list)
    for record in member.received:
        by_key[record.key].append(int(record.value or b""))
    assert len(by_key) == 13
    assert all(numbers == sorted(numbers) for numbers in by_key.values())
    for records in member.records.values():
        assert [record.offset for record in records] == list(range(len(records)))


def test_a_restarted_member_goes_on_behind_what_was_committed(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(100)
    first = join()
    until(lambda: len(first.received) == 100, first)
    kept = first.received
    done = {partition: records[: len(records) // 2] for partition, records in first.records.items()}
    outputs = [bench.verdict(record.value or b"") for records in done.values() for record in records]
    first.log.commit(outputs, {p: records[-1].offset + 1 for p, records in done.items() if records})
    first.log.close()

    second = join()
    until(lambda: len(second.received) + len(outputs) >= 100, second)
    for_a_while(second, seconds=0.5)
    again = {(record.partition, record.offset) for record in second.received}
    committed = {(record.partition, record.offset) for records in done.values() for record in records}
    assert again == {(record.partition, record.offset) for record in kept} - committed
    second.commit_all(bench)
    assert sorted(int(value or b"") for value in bench.committed_verdicts()) == list(range(100))


def test_a_commit_that_fails_leaves_neither_outputs_nor_offsets_and_can_be_repeated(
    bench: Bench, join: Callable[[], Member]
) -> None:
    bench.values(10)
    member = join()
    until(lambda: len(member.received) == 10, member)
    with pytest.raises(CommitFailed):
        member.log.commit([bench.verdict(b"half"), bench.refused()], member.offsets())
    assert bench.committed_verdicts() == []

    member.log.commit([bench.verdict(b"whole")], member.offsets())
    assert bench.committed_verdicts() == [b"whole"]
    member.log.close()
    heir = join()
    until(lambda: len(heir.owned) == PARTITIONS, heir)
    for_a_while(heir)
    assert heir.received == []


def test_an_event_moved_to_another_topic_is_in_one_of_them_and_keeps_its_key_and_its_first_place(
    bench: Bench, join: Callable[..., Member]
) -> None:
    event = ImageEvent(
        id="e", occurred_at=datetime(2026, 1, 1, tzinfo=UTC), image=S3Reference(bucket="bucket", key="k")
    )
    bench.append([Output(bench.images, canonical(event), b"key-1", (("trace", b"7"),))])
    member = join(bench.later)
    until(lambda: member.received and len(member.owned) == PARTITIONS + 1, member)
    (record,) = member.received
    source = Source(topic=bench.images, partition=record.partition.number, offset=record.offset)
    deferral = Deferral(source=source, first_seen_ms=record.timestamp_ms, attempts=3)
    moved = deferred_output(record, event, deferral, bench.later)

    with pytest.raises(CommitFailed):
        member.log.commit([moved, bench.refused()], member.offsets())
    for_a_while(member, seconds=0.5)
    assert member.received == [record], "a move whose commit failed did not happen"

    member.log.commit([moved], member.offsets())
    member.records.clear()
    until(lambda: member.received, member)
    (later,) = member.received
    assert later.partition == Partition(bench.later, 0)
    assert (later.key, dict(later.headers)["trace"]) == (b"key-1", b"7")
    assert read_deferral(later) == deferral
    assert parse(later).events == (event,)


def test_offsets_without_outputs_and_outputs_in_their_order(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(40)
    member = join()
    until(lambda: len(member.received) == 40, member)
    partition, offset = next(iter(member.offsets().items()))
    member.log.commit([], {partition: offset})
    member.log.commit([bench.verdict(b"%d" % number) for number in range(300)], member.offsets())
    assert bench.committed_verdicts() == [b"%d" % number for number in range(300)]


@of_several_members
def test_two_members_divide_the_partitions(bench: Bench, join: Callable[[], Member]) -> None:
    first = join()
    until(lambda: len(first.owned) == PARTITIONS, first)
    second = join()
    until(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2, first, second)
    assert not first.owned & second.owned

    bench.values(200)
    until(lambda: len(first.received) + len(second.received) >= 200, first, second)
    assert {record.partition for record in first.received} <= first.owned
    values = [int(record.value or b"") for record in first.received + second.received]
    assert sorted(values) == list(range(200))


@of_several_members
def test_what_a_closed_member_had_moves_to_the_others(bench: Bench, join: Callable[[], Member]) -> None:
    first, second = join(), join()
    until(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2, first, second)
    started = time.monotonic()
    first.log.close()
    until(lambda: len(second.owned) == PARTITIONS, second)
    assert time.monotonic() - started < SESSION_SECONDS + 10


@of_several_members
def test_a_revoked_partition_can_be_committed_before_it_is_released(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(100)
    first = join()
    until(lambda: len(first.received) == 100, first)
    second = join()
    until(lambda: first.revoked, first, second, release=False)
    assert not second.owned & first.revoked, "they are nobody else's before they are released"

    first.commit_all(bench)
    first.release()
    until(lambda: len(first.owned) == len(second.owned) == PARTITIONS // 2, first, second)
    for_a_while(first, second)
    assert second.received == first.received == []
    assert len(bench.committed_verdicts()) == 100


def test_what_a_killed_member_had_moves_and_its_uncommitted_records_come_again(
    bench: Bench, join: Callable[[], Member], elsewhere: Callable[[], Process]
) -> None:
    bench.values(100)
    victim = elsewhere()
    receives(victim, 100)
    victim.kill()
    victim.wait()

    heir = join()
    until(lambda: len(heir.received) >= 100, heir)
    heir.commit_all(bench)
    assert sorted(int(value or b"") for value in bench.committed_verdicts()) == list(range(100))


@of_several_members
@pytest.mark.parametrize("seconds_after_waking", [0, 3])
def test_a_member_that_slept_through_its_replacement_cannot_commit(
    bench: Bench, join: Callable[[], Member], elsewhere: Callable[[], Process], seconds_after_waking: int
) -> None:
    """Not at once, and not once its client is back in the group but the member has not polled, and so not heard."""
    bench.values(100)
    zombie = elsewhere()
    receives(zombie, 100)
    zombie.send_signal(signal.SIGSTOP)
    heir = join()
    until(lambda: len(heir.received) >= 100, heir)
    heir.commit_all(bench)

    assert zombie.stdin is not None
    zombie.stdin.write(f"commit {seconds_after_waking}\n")
    zombie.stdin.flush()
    zombie.send_signal(signal.SIGCONT)
    for_a_while(heir, seconds=seconds_after_waking)
    assert line(zombie) in {Fenced.__name__, CommitFailed.__name__}
    assert sorted(int(value or b"") for value in bench.committed_verdicts()) == list(range(100))


def test_paused_partitions_give_nothing_and_go_on_where_they_stopped(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(100)
    member = join()
    until(lambda: len(member.received) == 100, member)
    paused = {Partition(bench.images, 0), Partition(bench.images, 1)}
    member.log.pause(paused)
    for_a_while(member, seconds=0.3)
    before = {partition: len(member.records[partition]) for partition in paused}
    bench.values(100)
    for_a_while(member, seconds=1.5)
    assert {partition: len(member.records[partition]) for partition in paused} == before
    open_partitions = [partition for partition in member.owned if partition not in paused]
    assert sum(len(member.records[partition]) for partition in open_partitions) + sum(before.values()) < 200

    member.log.pause({Partition(bench.images, 3)})
    until(lambda: len(member.received) == 200, member)
    for records in member.records.values():
        assert [record.offset for record in records] == list(range(len(records)))


def has_received(member: Member, count: int) -> bool:
    return len(member.received) >= count


def test_partitions_paused_again_and_again_are_read_to_the_end(bench: Bench, join: Callable[[], Member]) -> None:
    """More than one poll brings, so that some of each partition has been fetched, but not handed out, at each pause."""
    count = 12_000
    bench.values(count)
    member = join()
    for target in range(1000, count + 1, 1000):
        until(functools.partial(has_received, member, target), member)
        for paused in (member.owned, {p for p in member.owned if p.number % 2}, set()):
            member.log.pause(paused)
            for_a_while(member, seconds=0.12)
    for records in member.records.values():
        assert [record.offset for record in records] == list(range(len(records)))


def test_lag_counts_what_has_not_been_read(bench: Bench, join: Callable[[], Member]) -> None:
    member = join()
    until(lambda: len(member.owned) == PARTITIONS, member)
    bench.values(60)
    until(lambda: len(member.received) == 60, member)
    until(lambda: member.log.lag().by_partition == dict.fromkeys(member.owned, 0), member)

    partition = member.received[0].partition
    member.log.pause(member.owned)
    for_a_while(member, seconds=0.3)
    key = member.records[partition][0].key
    bench.append([Output(bench.images, b"more", key=key)] * 7)
    if bench.kind == "sqlite":  # Kafka tells the end of a partition only with what is fetched from it
        assert member.log.lag().by_partition == {p: 7 if p == partition else 0 for p in member.owned}
    member.log.pause(set())
    until(lambda: len(member.received) == 67, member)
    until(lambda: member.log.lag().by_partition == dict.fromkeys(member.owned, 0), member)


def test_keys_headers_and_odd_values_survive(bench: Bench, join: Callable[[], Member]) -> None:
    before_ms = time.time() * 1000
    outputs = [
        Output(bench.images, b"", key=b"k"),
        Output(bench.images, None, key=b"k"),  # type: ignore[arg-type]  # a tombstone, as other producers write them
        Output(bench.images, b"\x00\xff\r\n", key=b"\xff\x00"),
        Output(bench.images, b"v", key=b"", headers=(("ce_id", b"1"), ("twice", b"\xff"), ("twice", b""))),
        Output(bench.images, b"keyless"),
        Output(bench.images, b"x" * 5_000_000, key=b"large"),
    ]
    bench.append(outputs)
    member = join()
    until(lambda: len(member.received) == len(outputs), member)

    def comparable(item: Output | Record) -> tuple[object, ...]:
        return (item.value or b"", item.value is None, item.key or b"", item.key is None, item.headers)

    assert sorted(map(comparable, member.received)) == sorted(map(comparable, outputs))
    assert all(before_ms - 1000 < record.timestamp_ms < before_ms + 60_000 for record in member.received)


def test_large_outputs_are_written(bench: Bench, join: Callable[[], Member]) -> None:
    bench.values(1)
    member = join()
    until(lambda: len(member.received) == 1, member)
    member.log.commit([bench.verdict(b"x" * 5_000_000)], member.offsets())
    assert [len(value or b"") for value in bench.committed_verdicts()] == [5_000_000]


def test_a_topic_that_does_not_exist_is_named_in_the_error(bench: Bench) -> None:
    with pytest.raises(LogError, match=r"missing.*sluice topics create"):
        bench.member_of_missing_topic().poll(0)


def test_a_log_without_records_polls_in_the_time_it_was_given(bench: Bench, join: Callable[[], Member]) -> None:
    member = join()
    until(lambda: len(member.owned) == PARTITIONS, member)
    for_a_while(member, seconds=0.5)
    started = time.monotonic()
    assert not member.log.poll(0.3).records
    assert 0.2 < time.monotonic() - started < 1.5
