from collections.abc import Callable

import pytest

from worker.apps.patience import PATIENCE_SECONDS, once_kafka_answers
from worker.intake.log import LogError


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def answering_at(time: Time, seconds: float) -> Callable[[], str]:
    def open_it() -> str:
        if time.now < seconds:
            raise LogError("no broker")
        return "open"

    return open_it


def test_an_application_that_comes_up_before_its_kafka_waits_for_it() -> None:
    time = Time()
    assert once_kafka_answers(answering_at(time, 300), clock=time.clock, sleep=time.sleep) == "open"
    assert time.now == 300


def test_a_kafka_that_never_comes_is_told_in_the_end() -> None:
    time = Time()
    with pytest.raises(LogError, match="no broker"):
        once_kafka_answers(answering_at(time, 10 * PATIENCE_SECONDS), clock=time.clock, sleep=time.sleep)
    assert time.now == PATIENCE_SECONDS


def test_whoever_is_told_to_stop_waits_no_longer() -> None:
    time = Time()
    with pytest.raises(LogError):
        once_kafka_answers(answering_at(time, 300), stopping=lambda: time.now >= 5, clock=time.clock, sleep=time.sleep)
    assert time.now == 5


def test_other_faults_are_not_waited_for() -> None:
    def broken() -> None:
        raise ValueError("settings")

    with pytest.raises(ValueError, match="settings"):
        once_kafka_answers(broken, sleep=lambda _: pytest.fail("waited"))
