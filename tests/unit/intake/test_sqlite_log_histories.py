"""Random histories of a group on one file: at most one process reads, and whatever happens, each record's output is
written exactly once, in order."""

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from worker.intake.log import Fenced, Output, Partition, Poll
from worker.intake.sqlite_log import SqliteLog
from worker.intake.sqlite_topics import SqliteTopics


@dataclass
class Member:
    """What a careful consumer keeps: the received and uncommitted records of each partition that it has."""

    log: SqliteLog
    owned: dict[Partition, list[tuple[int, bytes]]] = field(default_factory=dict)
    paused: set[Partition] = field(default_factory=set)


class GroupHistory(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="sluice-history-"))
        self.now = 1_000_000.0
        self.clock_is_off = 0.0
        self.path = self.folder / "log.sqlite"
        self.topics = SqliteTopics(self.path, clock=lambda: self.now + self.clock_is_off)
        self.members: list[Member] = []
        self.appended = 0

    @initialize(partitions=st.integers(1, 5), count=st.integers(1, 60))
    def two_members_at_work(self, partitions: int, count: int) -> None:
        self.topics.create({"in": partitions, "out": 1})
        self.append(count)
        for _ in range(2):
            self.join()
        for member in self.members:
            self.take(member, member.log.poll(0))

    @rule(count=st.integers(1, 20))
    def append(self, count: int) -> None:
        numbers = range(self.appended, self.appended + count)
        self.topics.append([Output("in", b"%d" % i, key=b"%d" % (i % 11)) for i in numbers])
        self.appended += count

    @precondition(lambda self: len(self.members) < 3)
    @rule()
    def join(self) -> None:
        log = SqliteLog(
            self.path,
            topics=["in"],
            group_id="g",
            retain_records=3,
            clock=lambda: self.now + self.clock_is_off,
            monotonic=lambda: self.now,
        )
        self.members.append(Member(log))

    @precondition(lambda self: self.members)
    @rule(data=st.data(), count=st.integers(1, 4))
    def poll(self, data: st.DataObject, count: int) -> None:
        member = data.draw(st.sampled_from(self.members))
        for _ in range(count):
            self.take(member, member.log.poll(0))

    def take(self, member: Member, poll: Poll) -> None:
        assert not poll.lost
        assert not poll.revoked
        for partition in poll.assigned:
            assert partition not in member.owned, "assigned twice"
            member.owned[partition] = []
        assert not poll.assigned or [each for each in self.members if each.owned] == [member], "two readers"
        for record in poll.records:
            assert record.partition in member.owned, "a record of a partition that is not the member's"
            assert record.partition not in member.paused, "a record of a paused partition"
            received = member.owned[record.partition]
            assert not received or received[-1][0] < record.offset, "received twice or out of order"
            assert record.value is not None
            received.append((record.offset, record.value))

    @precondition(lambda self: self.members)
    @rule(data=st.data(), share=st.sampled_from([0.3, 0.6, 1.0]))
    def commit(self, data: st.DataObject, share: float) -> None:
        self.commit_share(data.draw(st.sampled_from(self.members)), share)

    def commit_share(self, member: Member, share: float) -> None:
        outputs, offsets = [], {}
        for partition, received in member.owned.items():
            done = received[: round(len(received) * share)]
            if done:
                outputs += [Output("out", value, key=b"%d" % partition.number) for _, value in done]
                offsets[partition] = done[-1][0] + 1
        if not member.owned:
            with pytest.raises(Fenced):
                member.log.commit(outputs, offsets)
            return
        member.log.commit(outputs, offsets)
        for partition, offset in offsets.items():
            member.owned[partition] = [item for item in member.owned[partition] if item[0] >= offset]

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def pause(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        partitions = [Partition("in", number) for number in range(5)]
        member.paused = data.draw(st.sets(st.sampled_from(partitions)))
        member.log.pause(member.paused)

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        member.log.close()

    @precondition(lambda self: len(self.members) > 1)
    @rule(data=st.data())
    def kill(self, data: st.DataObject) -> None:
        member = data.draw(st.sampled_from(self.members))
        self.members.remove(member)
        member.log._db.close()
        member.log._commit_db.close()
        member.log._reader_lock.release()

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(seconds=st.sampled_from([3600.0, -3600.0]))
    def the_clock_is_set(self, seconds: float) -> None:
        self.clock_is_off += seconds

    def written(self) -> list[int]:
        return [int(record.value or b"") for record in self.topics.read({Partition("out", 0): 0}, max_records=100_000)]

    @invariant()
    def nothing_is_written_twice_and_keys_keep_their_order(self) -> None:
        written = self.written()
        assert len(written) == len(set(written))
        for key in range(11):
            of_key = [number for number in written if number % 11 == key]
            assert of_key == sorted(of_key)

    def teardown(self) -> None:
        try:
            if not self.topics_were_created():
                return
            for member in self.members:
                member.log.close()
            self.members.clear()
            self.join()
            (last,) = self.members
            while (poll := last.log.poll(0)) != Poll():
                self.take(last, poll)
            outputs = [Output("out", value) for received in last.owned.values() for _, value in received]
            last.log.commit(outputs, {p: received[-1][0] + 1 for p, received in last.owned.items() if received})
            last.log.close()
            assert sorted(self.written()) == list(range(self.appended)), "lost or doubled"
        finally:
            self.topics.close()
            shutil.rmtree(self.folder)

    def topics_were_created(self) -> bool:
        return self.topics._db.execute("SELECT 1 FROM partitions").fetchone() is not None


GroupHistory.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestGroupHistory = GroupHistory.TestCase
