"""The memory of a backlog goes back to the system once, when the worker has been idle for a while."""

import threading

from worker.intake.memory_return import QUIET_SECONDS, WORTH_EVENTS, MemoryReturn


class Bench:
    def __init__(self) -> None:
        self.trimmed = threading.Semaphore(0)
        self.memory = MemoryReturn(self.trimmed.release)

    def has_trimmed(self, is_idle: bool, begun: int, now: float) -> bool:
        self.memory.turn(is_idle, begun, now)
        return self.trimmed.acquire(timeout=0.05)


def test_a_backlog_is_followed_by_one_trim() -> None:
    bench = Bench()
    assert not bench.has_trimmed(False, 5000, 1.0)
    assert not bench.has_trimmed(True, 5000, 2.0)
    bench.memory.turn(True, 5000, 2.0 + QUIET_SECONDS)
    assert bench.trimmed.acquire(timeout=10)
    assert not bench.has_trimmed(True, 5000, 100.0)


def test_a_pause_within_the_work_and_a_few_events_are_not_worth_it() -> None:
    bench = Bench()
    assert not bench.has_trimmed(True, 5000, 0.0)
    assert not bench.has_trimmed(False, 5001, QUIET_SECONDS - 1)
    assert not bench.has_trimmed(True, 5002, QUIET_SECONDS + 1)
    few = Bench()
    assert not few.has_trimmed(True, WORTH_EVENTS - 1, 0.0)
    assert not few.has_trimmed(True, WORTH_EVENTS - 1, QUIET_SECONDS)
