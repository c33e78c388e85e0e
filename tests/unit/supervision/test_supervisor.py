"""A loop that fails is restarted, counted, and named by the health check when it does not come back."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from structlog.testing import capture_logs

from tests.unit.clock import Clock
from worker.supervision import RestartPolicy, Supervisor

PATIENCE_SECONDS = 30.0
QUICK = RestartPolicy(first_pause=0.001, longest_pause=0.004, steady_after=15.0, unhealthy_after=30.0)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def supervisor(clock: Clock) -> Iterator[Supervisor]:
    supervisor = Supervisor(policy=QUICK, clock=clock)
    yield supervisor
    assert supervisor.close(PATIENCE_SECONDS)


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


def restarts(supervisor: Supervisor, loop: str) -> float:
    return supervisor.registry.get_sample_value("sluice_loop_restarts_total", {"loop": loop}) or 0.0


def up(supervisor: Supervisor, loop: str) -> float | None:
    return supervisor.registry.get_sample_value("sluice_loop_up", {"loop": loop})


def test_a_loop_that_raises_anything_is_restarted_counted_and_logged(supervisor: Supervisor) -> None:
    faults = iter([ValueError("never thought of"), OSError("away"), AssertionError("a bug")])
    works = threading.Event()

    def run(stop: threading.Event) -> None:
        if (fault := next(faults, None)) is not None:
            raise fault
        works.set()
        stop.wait(PATIENCE_SECONDS)

    with capture_logs() as logs:
        supervisor.start("projector", run, expected=(OSError,))
        assert works.wait(PATIENCE_SECONDS)
    assert restarts(supervisor, "projector") == 3
    told = [(each["log_level"], each["error"]) for each in logs if each["event"] == "loop_failed"]
    assert told == [
        ("error", "ValueError: never thought of"),
        ("warning", "OSError: away"),
        ("error", "AssertionError: a bug"),
    ]
    assert supervisor.health_problems() == ()


def test_a_loop_that_does_not_come_back_fails_the_health_check_with_its_name(
    supervisor: Supervisor, clock: Clock
) -> None:
    def run(_: threading.Event) -> None:
        raise ValueError("postgres://secret@host refused")

    supervisor.start("webhook", run)
    until(lambda: restarts(supervisor, "webhook") >= 3)
    assert supervisor.health_problems() == ()  # it may still come back
    clock.now = QUICK.unhealthy_after
    (problem,) = supervisor.health_problems()
    assert "webhook" in problem
    assert "secret" not in problem
    assert up(supervisor, "webhook") == 0


def test_a_loop_that_came_back_is_healthy_once_it_has_run_for_a_while(supervisor: Supervisor, clock: Clock) -> None:
    broken = threading.Event()
    broken.set()
    running = threading.Event()

    def run(stop: threading.Event) -> None:
        if broken.is_set():
            raise ValueError("broken")
        running.set()
        stop.wait(PATIENCE_SECONDS)

    supervisor.start("projector", run)
    until(lambda: restarts(supervisor, "projector") >= 1)
    clock.now = 100.0
    assert supervisor.health_problems()
    broken.clear()
    assert running.wait(PATIENCE_SECONDS)
    assert supervisor.health_problems()  # not yet: a loop that fails every few seconds must not look well
    clock.now += QUICK.steady_after
    assert supervisor.health_problems() == ()
    assert up(supervisor, "projector") == 1


def test_a_loop_that_just_returns_counts_as_failed(supervisor: Supervisor, clock: Clock) -> None:
    supervisor.start("events", lambda _: None)
    until(lambda: restarts(supervisor, "events") >= 2)
    clock.now = 60.0
    assert "events" in supervisor.health_problems()[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_loop_whose_thread_is_gone_is_told_at_once(supervisor: Supervisor) -> None:
    def run(_: threading.Event) -> None:
        raise SystemExit

    supervisor.start("events", run)
    until(lambda: bool(supervisor.health_problems()))
    assert supervisor.health_problems() == ("the loop events has ended",)


def test_the_pause_before_a_restart_doubles_up_to_a_limit(clock: Clock) -> None:
    policy = RestartPolicy(first_pause=0.002, longest_pause=0.008)
    supervisor = Supervisor(policy=policy, clock=clock)

    def run(_: threading.Event) -> None:
        raise ValueError("broken")

    with capture_logs() as logs:
        supervisor.start("projector", run)
        until(lambda: restarts(supervisor, "projector") >= 8)
        assert supervisor.close(PATIENCE_SECONDS)
    assert max(each["restart_in_seconds"] for each in logs if each["event"] == "loop_failed") <= 0.01


def test_closing_ends_every_loop_and_tells_when_one_does_not_end() -> None:
    supervisor = Supervisor(policy=QUICK)
    release = threading.Event()
    supervisor.start("well", lambda stop: stop.wait(PATIENCE_SECONDS) and None)
    supervisor.start("deaf", lambda _: release.wait(PATIENCE_SECONDS) and None)
    try:
        with capture_logs() as logs:
            assert not supervisor.close(0.2)
        assert [each["loop"] for each in logs if each["event"] == "loop_did_not_end"] == ["deaf"]
    finally:
        release.set()


def test_a_loop_that_was_stopped_is_no_problem(supervisor: Supervisor) -> None:
    loop = supervisor.start("webhook", lambda stop: stop.wait(PATIENCE_SECONDS) and None)
    assert supervisor.stop(loop, PATIENCE_SECONDS)
    assert supervisor.health_problems() == ()
