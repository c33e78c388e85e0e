import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.clock import Clock
from worker.intake.log import CommitFailed, Fenced, LogError, Output, Partition, Poll, Record
from worker.intake.sqlite_log import ASSIGN_SECONDS, SqliteLog
from worker.intake.sqlite_topics import SqliteTopics


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000_000.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "log.sqlite"


@pytest.fixture
def topics(path: Path, clock: Clock) -> SqliteTopics:
    topics = SqliteTopics(path, clock=clock)
    topics.create({"in": 4, "out": 1})
    return topics


@pytest.fixture
def member(path: Path, topics: SqliteTopics, clock: Clock) -> Callable[..., SqliteLog]:
    def join(retain_records: int = 1000, group_id: str = "g") -> SqliteLog:
        return SqliteLog(
            path,
            topics=["in"],
            group_id=group_id,
            retain_records=retain_records,
            clock=clock,
            monotonic=clock,
        )

    return join


def everything(log: SqliteLog) -> list[Record]:
    records: list[Record] = []
    while (poll := log.poll(0)) != Poll():
        records += poll.records
    return records


def keyed(count: int) -> list[Output]:
    return [Output("in", b"%d" % i, key=b"key-%d" % (i % 7)) for i in range(count)]


def test_what_was_appended_is_read_back_whole_and_in_order_per_key(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock
) -> None:
    outputs = [
        Output("in", b"", key=b"k", headers=(("ce_id", b"\x00\xff"), ("twice", b"1"), ("twice", b"2"))),
        Output("in", b"\xff" * 3_000_000, key=b"k"),
        Output("in", None, key=b"k"),  # type: ignore[arg-type]  # a tombstone, as other producers write them
    ]
    topics.append(outputs)

    records = everything(member())
    assert [(r.value, r.key, r.headers) for r in records] == [(o.value, o.key, o.headers) for o in outputs]
    assert [r.offset for r in records] == [0, 1, 2]
    assert {r.timestamp_ms for r in records} == {int(clock.now * 1000)}


def test_keyless_records_spread_over_the_partitions(topics: SqliteTopics) -> None:
    topics.append([Output("in", b"x")] * 8)
    assert set(topics.ends("in").values()) == {2}


def test_more_partitions_can_be_had_and_none_are_lost(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    topics.append(keyed(20))
    topics.create({"in": 6})
    topics.create({"in": 2})

    assert len(topics.ends("in")) == 6
    assert len(everything(member())) == 20


def test_a_topic_that_does_not_exist_is_named(
    path: Path, topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    with pytest.raises(LogError, match=r"no topic 'nowhere'.*topics create"):
        SqliteLog(path, topics=["nowhere"], group_id="g").poll(0)
    with pytest.raises(LogError, match="no topic 'nowhere'"):
        topics.append([Output("in", b"1"), Output("nowhere", b"2")])
    assert sum(topics.ends("in").values()) == 0

    log = member()
    log.poll(0)
    with pytest.raises(CommitFailed, match="no topic 'nowhere'"):
        log.commit([Output("out", b"1"), Output("nowhere", b"2")], {Partition("in", 0): 0})
    assert topics.ends("out") == {Partition("out", 0): 0}


@pytest.mark.parametrize(
    "content",
    [b"not a database, just text that is long enough to be looked at" * 20, b"SQLite format 3\0" + b"\0" * 90],
)
def test_a_file_that_is_no_log_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.sqlite"
    path.write_bytes(content)
    with pytest.raises(LogError, match=r"odd\.sqlite"):
        SqliteTopics(path)


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.sqlite"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE things (name TEXT)")
    theirs.close()

    with pytest.raises(LogError, match=r"theirs\.sqlite is not a log of format 2"):
        SqliteTopics(path)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match=r"file/log\.sqlite"):
        SqliteTopics(tmp_path / "file" / "log.sqlite")


def test_a_second_process_waits_says_so_and_takes_over_when_the_first_ends(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock
) -> None:
    topics.append(keyed(20))
    first, second = member(), member()
    assert len(everything(first)) == 20
    assert second.poll(0) == Poll()
    assert first.notes() == ()
    assert "another process reads" in second.notes()[0]
    assert "use Kafka" in second.notes()[0]
    assert second.health_problems() == ()
    with pytest.raises(Fenced):
        second.commit([Output("out", b"not mine")], {Partition("in", 0): 1})

    (partition, end), *_ = topics.ends("in").items()
    first.commit([], {partition: end})
    first.close()
    clock.now += ASSIGN_SECONDS
    assert len(second.poll(0).assigned) == 4
    assert second.notes() == ()
    assert len(everything(second)) == 20 - end


def test_a_process_that_takes_over_a_finished_group_has_nothing_to_read(
    topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    topics.append(keyed(20))
    topics.finish_group("g", "in")
    log = member()
    assert everything(log) == []
    assert set(log.lag().by_partition.values()) == {0}


def test_groups_read_beside_each_other(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    topics.append(keyed(20))
    assert [len(everything(member(group_id=group))) for group in ("g", "a/b" * 80)] == [20, 20]


def test_partitions_that_are_added_are_read(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock
) -> None:
    log = member()
    assert len(log.poll(0).assigned) == 4
    topics.create({"in": 6})
    assert log.poll(0) == Poll()
    clock.now += ASSIGN_SECONDS
    assert log.poll(0).assigned == {Partition("in", 4), Partition("in", 5)}


def test_a_log_whose_groups_had_several_members_is_read_on(
    path: Path, topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    topics.append(keyed(20))
    with sqlite3.connect(path) as old:
        for table in ("groups", "members", "claims"):
            old.execute(f"CREATE TABLE {table} (id TEXT)")
        old.execute("PRAGMA user_version = 1")
    old.close()
    assert len(everything(member())) == 20


def test_a_commit_behind_the_committed_offset_is_fenced(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    log = member()
    log.poll(0)
    log.commit([], {Partition("in", 0): 5})
    with pytest.raises(Fenced, match="committed up to 5; a commit of 4 comes too late"):
        log.commit([Output("out", b"again")], {Partition("in", 0): 4})
    assert topics.ends("out") == {Partition("out", 0): 0}


def test_a_process_that_ended_without_closing_leaves_the_log_to_the_next_one(path: Path, topics: SqliteTopics) -> None:
    code = (
        "import sys; from pathlib import Path; from worker.intake.sqlite_log import SqliteLog; "
        "log = SqliteLog(Path(sys.argv[1]), topics=['in'], group_id='g'); "
        "print(len(log.poll(0).assigned), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    heir = SqliteLog(path, topics=["in"], group_id="g")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        assert reader.stdout.readline().strip().endswith("4")
        assert heir.poll(0) == Poll()
        reader.kill()
    assert len(heir.poll(2 * ASSIGN_SECONDS).assigned) == 4


def test_a_full_disk_is_told_with_what_is_wanted_and_work_goes_on_once_there_is_room(
    path: Path, topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    topics.append(keyed(4))
    log = member()
    log.poll(0)
    big = Output("out", b"x" * 3_000_000)
    (pages,) = log._commit_db.execute("PRAGMA page_count").fetchone()
    log._commit_db.execute(f"PRAGMA max_page_count = {pages + 10}")  # SQLite says the same of a disk that is full

    with pytest.raises(CommitFailed, match=r"disk full: .*data needs 6\.7 MiB for the next write, .* are free; make"):
        log.commit([big], {Partition("in", 0): 0})
    assert log.health_problems()[0].startswith("disk full: ")

    log._commit_db.execute("PRAGMA max_page_count = 1000000")
    log.commit([big], {Partition("in", 0): 0})
    assert log.health_problems() == ()
    assert sum(topics.ends("out").values()) == 1


def test_a_member_that_cannot_begin_on_a_full_disk_says_so_and_begins_once_there_is_room(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.append(keyed(4))
    log = member()
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def refuse(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(log, "_begin_group", refuse)
        assert everything(log) == []
        assert log.health_problems()[0].startswith("disk full: ")
    clock.now += ASSIGN_SECONDS
    assert len(everything(log)) == 4
    log.commit([], {Partition("in", 0): 0})
    assert log.health_problems() == ()


def test_paused_partitions_give_nothing_and_go_on_where_they_stopped(
    topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    log = member()
    paused = Partition("in", 0)
    topics.append([Output("in", b"before")] * 8)
    everything(log)
    log.pause({paused})
    topics.append([Output("in", b"after")] * 8)

    assert {r.partition for r in everything(log)} == {Partition("in", number) for number in (1, 2, 3)}
    assert log.lag().by_partition == {Partition("in", number): 0 if number else 2 for number in range(4)}
    log.pause(set())
    assert [(r.partition, r.offset) for r in everything(log)] == [(paused, 2), (paused, 3)]


def test_a_full_partition_does_not_starve_the_others(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    topics.append([Output("in", b"x", key=b"hot")] * 5000 + [Output("in", b"y")] * 4)
    log = member()
    log.poll(0)
    seen = {r.partition for _ in range(4) for r in log.poll(0).records}
    assert len(seen) == 4


def test_a_poll_is_bounded_in_records_and_bytes(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    topics.append([Output("in", b"x" * 1000)] * 3000 + [Output("in", b"x" * 6_000_000)] * 16)
    log = member()
    log.poll(0)
    polls = []
    while records := log.poll(0).records:
        polls.append(records)
    assert sum(map(len, polls)) == 3016
    assert max(map(len, polls)) == 500
    assert max(sum(len(r.value or b"") for r in records) for records in polls) < 22_100_000


def test_records_that_every_group_consumed_are_dropped_beyond_the_limit(
    topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    topics.append([Output("in", b"%d" % i, key=b"k") for i in range(100)])
    (partition,) = (p for p, end in topics.ends("in").items() if end)
    first, slow = member(retain_records=10), member(group_id="slow")
    first.poll(0)
    slow.poll(0)

    def oldest() -> int:
        return topics.read({partition: 0})[0].offset

    first.commit([], {partition: 50})
    assert oldest() == 0, "the slow group has not seen them"
    slow.commit([], {partition: 40})
    first.commit([], {partition: 60})
    assert oldest() == 30
    assert len(everything(slow)) == 70
    assert member(group_id="new").poll(0).assigned
    assert topics.committed("new", "in")[partition] == 30


def test_a_disk_that_fails_in_a_commit_leaves_nothing_behind(
    path: Path, topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    log = member()
    log.poll(0)
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("CREATE TRIGGER full BEFORE INSERT ON offsets BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
        with pytest.raises(CommitFailed, match="disk is full"):
            log.commit([Output("out", b"1")], {Partition("in", 0): 1})
        assert topics.ends("out") == {Partition("out", 0): 0}
        other.execute("DROP TRIGGER full")
    other.close()
    log.commit([Output("out", b"1")], {Partition("in", 0): 1})
    assert topics.ends("out") == {Partition("out", 0): 1}
