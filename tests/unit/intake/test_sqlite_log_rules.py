import itertools
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.intake.log import CommitFailed, Fenced, LogError, Output, Partition, Poll, Record
from worker.intake.sqlite_log import SqliteLog, fair_share
from worker.intake.sqlite_topics import SqliteTopics

SESSION = 5.0


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


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
            session_seconds=SESSION,
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

    with pytest.raises(LogError, match=r"theirs\.sqlite is not a log of format 1"):
        SqliteTopics(path)


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LogError, match=r"file/log\.sqlite"):
        SqliteTopics(tmp_path / "file" / "log.sqlite")


def test_two_members_share_and_a_change_is_seen_at_the_next_poll(member: Callable[..., SqliteLog]) -> None:
    first, second = member(), member()
    assert len(first.poll(0).assigned) == 4
    assert second.poll(0).assigned == frozenset()

    revoked = first.poll(0).revoked
    assert len(revoked) == 2
    assert second.poll(0) == Poll(), "they are not free before their owner lets go"
    first.release(revoked)
    assert second.poll(0).assigned == revoked


def test_a_revoked_partition_can_be_committed_until_it_is_released(
    topics: SqliteTopics, member: Callable[..., SqliteLog]
) -> None:
    first, second = member(), member()
    first.poll(0), second.poll(0)
    revoked = first.poll(0).revoked

    first.commit([Output("out", b"last words")], dict.fromkeys(revoked, 0))
    first.release(revoked)
    with pytest.raises(Fenced):
        first.commit([Output("out", b"too late")], dict.fromkeys(revoked, 0))
    assert [r.value for r in topics.read({Partition("out", 0): 0})] == [b"last words"]


def test_a_member_that_stops_polling_is_put_out_and_fenced(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock
) -> None:
    zombie, heir = member(), member()
    assigned = zombie.poll(0).assigned
    heir.poll(0)
    clock.now += SESSION + 1
    assert heir.poll(0).assigned == assigned

    with pytest.raises(Fenced, match="removed"):
        zombie.commit([Output("out", b"ghost")], {Partition("in", 0): 3})
    assert zombie.poll(0).lost == assigned
    with pytest.raises(Fenced):
        zombie.commit([Output("out", b"ghost")], {})
    assert topics.ends("out") == {Partition("out", 0): 0}
    zombie.poll(0)
    assert len(heir.poll(0).revoked) == 2, "the zombie is a member again, of its share only"


def test_a_commit_behind_the_committed_offset_is_fenced(topics: SqliteTopics, member: Callable[..., SqliteLog]) -> None:
    log = member()
    log.poll(0)
    log.commit([], {Partition("in", 0): 5})
    with pytest.raises(Fenced, match="committed up to 5; a commit of 4 comes too late"):
        log.commit([Output("out", b"again")], {Partition("in", 0): 4})
    assert topics.ends("out") == {Partition("out", 0): 0}


def test_members_whose_clocks_differ_by_an_hour_put_nobody_out(path: Path, topics: SqliteTopics) -> None:
    here, there = Clock(), Clock()
    there.now += 3600
    members = [
        SqliteLog(path, topics=["in"], group_id="g", session_seconds=SESSION, clock=each, monotonic=each)
        for each in (here, there)
    ]
    lost: list[Poll] = []
    for _ in range(100):
        for clock in (here, there):
            clock.now += SESSION / 4
        for log in members:
            poll = log.poll(0)
            log.release(poll.revoked)
            lost += [poll] if poll.lost else []

    assert lost == []
    assert [len(log.lag().by_partition) for log in members] == [2, 2]


def test_a_member_whose_process_has_ended_is_put_out_at_once(path: Path, topics: SqliteTopics) -> None:
    code = (
        "import sys; from pathlib import Path; from worker.intake.sqlite_log import SqliteLog; "
        "print(len(SqliteLog(Path(sys.argv[1]), topics=['in'], group_id='g').poll(0).assigned)); "
        "import os; os._exit(0)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "4"

    assert len(SqliteLog(path, topics=["in"], group_id="g").poll(0).assigned) == 4


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


def test_a_member_that_cannot_report_for_want_of_room_keeps_its_partitions_and_reads_on(
    topics: SqliteTopics, member: Callable[..., SqliteLog], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics.append(keyed(4))
    log = member()
    assert log.poll(0).assigned
    full = sqlite3.OperationalError("database or disk is full")
    full.sqlite_errorcode = sqlite3.SQLITE_FULL

    def refuse(*_: object) -> None:
        raise full

    with monkeypatch.context() as patch:
        patch.setattr(log, "_take_part", refuse)
        clock.now += SESSION
        assert len(everything(log)) == 4
        assert log.health_problems()[0].startswith("disk full: ")
    clock.now += SESSION
    assert log.poll(0) == Poll()
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


@given(st.dictionaries(st.text(min_size=1), st.integers(0, 100), min_size=1), st.integers(0, 300))
def test_shares_add_up_and_differ_by_one_at_most(held: dict[str, int], partitions: int) -> None:
    shares = {member: fair_share(held, partitions, member) for member in held}
    assert sum(shares.values()) == partitions
    assert max(shares.values()) - min(shares.values()) <= 1
    by_held = sorted(shares, key=lambda member: held[member])
    assert all(shares[a] <= shares[b] for a, b in itertools.pairwise(by_held) if held[a] < held[b]), (
        "who holds most keeps the remainder"
    )
