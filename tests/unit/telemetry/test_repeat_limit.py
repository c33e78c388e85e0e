"""Libraries may say the same thing three times a minute."""

import io
import json
import logging

from worker.settings import TelemetrySettings
from worker.telemetry.logs import configure_logging
from worker.telemetry.repeat_limit import MAX_MESSAGES, RepeatLimit


class Log:
    def __init__(self) -> None:
        self.now = 100.0
        self._limit = RepeatLimit(("worker",), lambda: self.now)

    def shown(self, times: int, message: str = "node %s is away", *, name: str = "kafka.cluster") -> list[str]:
        records = [
            logging.LogRecord(name, logging.WARNING, "f", 1, message, (i,) if "%s" in message else (), None)
            for i in range(times)
        ]
        return [record.getMessage() for record in records if self._limit.filter(record)]


def test_the_first_three_of_a_message_are_shown_whatever_their_arguments() -> None:
    assert Log().shown(1000) == ["node 0 is away", "node 1 is away", "node 2 is away"]


def test_after_a_minute_the_next_one_says_how_many_were_left_out() -> None:
    log = Log()
    log.shown(10)
    log.now += 60
    assert log.shown(2) == ["node 0 is away (7 more like it were left out in the minute before)", "node 1 is away"]


def test_nothing_is_said_where_nothing_was_left_out() -> None:
    log = Log()
    log.shown(3)
    log.now += 60
    assert log.shown(1) == ["node 0 is away"]


def test_texts_that_differ_in_numbers_only_are_one_message() -> None:
    log = Log()
    texts = [f"<Task at 0x7f8e79f9{i:04x}> ran for 0.{i}s" for i in range(10)]
    assert [line for text in texts for line in log.shown(1, text)] == texts[:3]


def test_other_messages_loggers_and_our_own_are_not_held_back() -> None:
    log = Log()
    log.shown(10)
    assert len(log.shown(1, "node %s is back")) == 1
    assert len(log.shown(1, name="kafka.coordinator")) == 1
    assert len(log.shown(10, name="worker.intake")) == 10


def test_a_library_with_endless_different_messages_takes_bounded_memory() -> None:
    log = Log()
    for i in range(3 * MAX_MESSAGES):
        assert len(log.shown(1, f"{'x' * i}: %s")) == 1
    assert len(log._limit._seen) <= MAX_MESSAGES


def test_the_log_is_limited() -> None:
    stream = io.StringIO()
    configure_logging(TelemetrySettings(log_format="json"), stream)
    for i in range(50):
        logging.getLogger("kafka.conn").warning("no connection to node %s", i)
    lines = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert lines == [f"no connection to node {i}" for i in range(3)]
