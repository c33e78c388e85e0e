"""The wall clock of one of two workers jumps."""

import time

from ops.drills.bench import Bench
from ops.drills.drill import AnyDrill, Drill
from ops.drills.fake_clock import FakeClock
from ops.drills.stream_bench import DrillError
from ops.drills.worker_process import WorkerProcess

HOUR = 3600
JUMPS = (HOUR // 2, -2 * HOUR)
"""Seconds from the true time."""
REFUSED = 2 * HOUR
"""Kafka takes no record that is more than an hour ahead of its own clock (message.timestamp.after.max.ms)."""
NOTICE_SECONDS = 1.2
"""Within this time the worker has noticed a jump."""


def jump_kafka_clock(bench: Bench, repeats: int) -> None:
    clock, steady, odd = _two_workers(bench)
    for _ in range(repeats):
        _jump(bench, clock, steady, odd)
        clock.jump_to(REFUSED)

        def told() -> float | None:
            return time.monotonic() if any("machine's clock" in each for each in odd.problems()) else None

        bench.wait(told, "the worker whose records Kafka refuses does not say that its clock is wrong", 30.0)
        clock.jump_to(0)
        bench.recover()
        bench.wait(lambda: None if odd.problems() else time.monotonic(), "the worker stays unhealthy")
    odd.stop()


def _jump(bench: Bench, clock: FakeClock, *workers: WorkerProcess) -> None:
    """Both workers stay healthy."""
    for seconds in JUMPS:
        clock.jump_to(seconds)
        time.sleep(NOTICE_SECONDS)
        bench.recover()
        for worker in workers:
            if not worker.running:
                raise DrillError(f"a worker ended with status {worker.status}")
            if problems := worker.problems():
                raise DrillError(f"a worker is unhealthy with a clock {seconds} s off: {'; '.join(problems)}")


def _two_workers(bench: Bench) -> tuple[FakeClock, WorkerProcess, WorkerProcess]:
    """The second one has the clock."""
    clock = FakeClock(bench.folder / "clock")
    (steady,) = bench.ensure_workers(1)
    odd = bench.start_worker(clock.environment)
    bench.wait_until_at_work(2)
    bench.wait_for_a_verdict()
    return clock, steady, odd


DRILLS: tuple[AnyDrill, ...] = (
    Drill(
        "clock-jump",
        "The clock of one of two workers is set 30 min ahead, 2 h back, 2 h ahead (where Kafka refuses its records and "
        "the worker says so), and right.",
        jump_kafka_clock,
        5,
    ),
)
