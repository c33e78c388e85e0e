"""What a replay's worker sees of the log, and what others see of it."""

from collections.abc import Mapping, Sequence, Set

from worker.intake.log import Gap, Lag, Output, Partition, Poll, Record
from worker.replay.replay_log import QUIET_SECONDS, RUN_HEADER, ReplayLog, ReplayProgress

P0, P1 = Partition("images.in", 0), Partition("images.in", 1)


class ScriptedLog:
    """Gives the polls of a script; remembers what is committed and paused."""

    def __init__(self, polls: Sequence[Poll], lag: Mapping[Partition, int] | None = None) -> None:
        self.polls = list(polls)
        self.behind = lag or {}
        self.committed: list[tuple[Sequence[Output], Mapping[Partition, int]]] = []
        self.paused: Set[Partition] = frozenset()

    def poll(self, timeout_seconds: float) -> Poll:
        return self.polls.pop(0) if self.polls else Poll()

    def pause(self, partitions: Set[Partition]) -> None:
        self.paused = partitions

    def release(self, partitions: Set[Partition]) -> None: ...

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        self.committed.append((outputs, offsets))

    def lag(self) -> Lag:
        return Lag(self.behind)

    def health_problems(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None: ...


def records(partition: Partition, *offsets: int) -> list[Record]:
    return [Record(partition, offset, b"{}") for offset in offsets]


def opened(log: ScriptedLog, progress: ReplayProgress) -> ReplayLog:
    return ReplayLog(log, progress, run="r1", verdicts="images.verdicts", replays="images.replays")


def test_what_came_after_the_window_is_left_out_and_its_partition_is_paused() -> None:
    progress = ReplayProgress({P0: 0, P1: 5}, {P0: 3, P1: 5})
    log = ScriptedLog([Poll(records(P0, 1, 2, 3, 4), assigned=frozenset({P0, P1}))])
    replay = opened(log, progress)

    assert [record.offset for record in replay.poll(0).records] == [1, 2]
    assert log.paused == {P0}
    assert not progress.is_over
    replay.commit([], {P0: 3})
    assert progress.is_over
    assert progress.done == 3


def test_verdicts_go_into_the_replay_topic_with_the_run_and_nothing_else_goes_anywhere() -> None:
    log = ScriptedLog([])
    replay = opened(log, ReplayProgress({P0: 0}, {P0: 1}))
    topics = ("images.verdicts", "images.review", "images.dead")

    replay.commit([Output(topic, b"{}", b"k") for topic in topics], {P0: 1})

    assert log.committed == [([Output("images.replays", b"{}", b"k", ((RUN_HEADER, b"r1"),))], {P0: 1})]


def test_it_is_over_only_when_what_was_read_is_committed() -> None:
    now = [0.0]
    progress = ReplayProgress({P0: 0}, {P0: 10}, lambda: now[0])
    log = ScriptedLog([Poll(records(P0, 3, 6), assigned=frozenset({P0}))], {P0: 0})
    replay = opened(log, progress)

    replay.poll(0)
    assert not progress.is_over
    replay.poll(0)  # offsets 7 to 9 hold no records; nothing stands behind the read position
    now[0] += QUIET_SECONDS
    replay.poll(0)
    assert not progress.is_over
    replay.commit([], {P0: 7})
    assert progress.is_over


def test_records_that_left_the_log_are_counted_and_the_rest_is_judged() -> None:
    progress = ReplayProgress({P0: 0}, {P0: 10})
    gap = Gap(P0, 2, 8)
    log = ScriptedLog([Poll(records(P0, 8, 9), assigned=frozenset({P0}), gaps=(gap,))])
    replay = opened(log, progress)

    assert [record.offset for record in replay.poll(0).records] == [8, 9]
    replay.commit([], {P0: 10})
    assert progress.missed == 6
    assert progress.is_over


def test_a_partition_that_another_process_has_is_not_over_until_it_is_committed() -> None:
    progress = ReplayProgress({P0: 0, P1: 0}, {P0: 1, P1: 1})
    log = ScriptedLog([Poll(records(P0, 0), assigned=frozenset({P0}))])
    replay = opened(log, progress)
    replay.poll(0)
    replay.commit([], {P0: 1})

    assert not progress.is_over
    assert progress.done == 1
    progress.begin({P1: 1})
    assert progress.is_over


def test_a_run_that_is_finished_is_over_before_it_begins() -> None:
    progress = ReplayProgress({P0: 4}, {P0: 9})
    progress.begin({P0: 2**62})
    assert progress.is_over
    assert progress.done == 5
