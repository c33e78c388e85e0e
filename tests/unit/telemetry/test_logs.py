import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from worker.settings import TelemetrySettings
from worker.telemetry.logs import configure_logging, redact_text


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = root.handlers[:], root.level, threading.excepthook
    yield
    root.handlers[:], threading.excepthook = handlers, hook
    root.setLevel(level)
    for package in ("worker", "trt_build"):
        logging.getLogger(package).setLevel(logging.NOTSET)
    logging.captureWarnings(False)
    structlog.reset_defaults()


@pytest.fixture
def stream() -> io.StringIO:
    stream = io.StringIO()
    configure_logging(TelemetrySettings(), stream)
    return stream


def fail(error: Exception) -> None:
    raise error


def events(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_line_of_json_with_time_level_and_logger(stream: io.StringIO) -> None:
    structlog.get_logger("worker.intake.loop").info("partition_assigned", topic="images.in", partition=3)

    (event,) = events(stream)
    assert event | {"time": ""} == {
        "event": "partition_assigned",
        "topic": "images.in",
        "partition": 3,
        "level": "info",
        "logger": "worker.intake.loop",
        "time": "",
    }
    assert str(event["time"]).endswith("Z")


def test_an_exception_is_rendered_into_its_line_without_locals_or_secrets(stream: io.StringIO) -> None:
    local_secret = "hunter2"
    try:
        fail(ValueError("cannot reach redis://sluice:hunter3@cache:6379/0"))
    except ValueError:
        structlog.get_logger("worker.cache").exception("cache_down", length=len(local_secret))

    (event,) = events(stream)
    assert "ValueError: cannot reach redis://[redacted]@cache:6379/0" in str(event["exception"])
    assert "Traceback" in str(event["exception"])
    assert "hunter3" not in stream.getvalue()


def test_libraries_are_heard_from_warning_on_in_the_same_shape(stream: io.StringIO) -> None:
    logging.getLogger("kafka.coordinator").info("joining")
    logging.getLogger("botocore.auth").debug("Authorization: AWS4 abc")
    logging.getLogger("kafka.conn").warning("broker %s went away, password=%s", 1, "hunter2")
    try:
        fail(OSError("broken"))
    except OSError:
        logging.getLogger("urllib3").exception("failed")

    warning, failure = events(stream)
    assert warning["event"] == "broker 1 went away, password=[redacted]"
    assert (warning["level"], warning["logger"]) == ("warning", "kafka.conn")
    assert "OSError: broken" in str(failure["exception"])


def test_debug_is_silent_unless_asked_for() -> None:
    log = structlog.get_logger("worker.images")
    for level, expected in (("INFO", 0), ("DEBUG", 1)):
        stream = io.StringIO()
        configure_logging(TelemetrySettings(log_level=level), stream)
        log.debug("fetched")
        assert len(events(stream)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://u:p@h.example/a/b.png", "GET https://[redacted]@h.example/a/b.png"),
        ("https://h/a@2x.png?X-Amz-Signature=abc&x=1", "https://h/a@2x.png?[redacted]"),
        ("https://h/a?sig=abc'def<ghi>\" and", "https://h/a?[redacted] and"),
        ("https://h/login#access_token=abc", "https://h/login#[redacted]"),
        ("GET /a.png?token=abc&size=9", "GET /a.png?token=[redacted]&size=9"),
        ("{'access_token': 'abc', 'expires_in': 9}", "{'access_token': [redacted], 'expires_in': 9}"),
        ("AWS_SESSION_TOKEN=abc, SessionToken: abc", "AWS_SESSION_TOKEN=[redacted], SessionToken: [redacted]"),
        ("the passphrase: abc", "the passphrase: [redacted]"),
        ("Authorization: Token abcdef", "Authorization: [redacted]"),
        ("fencing token 7, tokens: 9", "fencing token 7, tokens: 9"),
        ("Authorization: Bearer abc.def-ghi", "Authorization: [redacted]"),
        ("{'Authorization': 'AWS4-HMAC-SHA256 Credential=AKIA'}", "{'Authorization': [redacted]}"),
        ("sent bearer abcdefghijk to h", "sent bearer [redacted] to h"),
        ("sasl_password=hunter2, mechanism=PLAIN", "sasl_password=[redacted], mechanism=PLAIN"),
        ('{"aws_secret_access_key": "abc/def"}', '{"aws_secret_access_key": [redacted]}'),
        ("Record(value=b'\\xff\\xd8 it\\'s', key=None)", "Record(value=<bytes>, key=None)"),
        ("\x1b[31mred\x1b[0m \x9b1m", "\\x1b[31mred\\x1b[0m \\x9b1m"),
        ("http://[::1]:8333/bucket/key", "http://[::1]:8333/bucket/key"),
        ("nothing to hide", "nothing to hide"),
    ],
)
def test_secrets_inside_text_are_taken_out(text: str, expected: str) -> None:
    assert redact_text(text) == expected


@pytest.mark.parametrize(
    "hostile",
    ["a" * 10**6, "password" * 10**5, "b'\\" * 10**5, "http://" * 10**5, "b'" + "\\x" * 10**5, "secret= " * 10**5],
)
def test_hostile_text_is_cut_and_costs_little(hostile: str) -> None:
    started = time.perf_counter()
    assert len(redact_text(hostile)) < 100_000
    assert time.perf_counter() - started < 1


@given(st.text(min_size=8, alphabet=st.characters(codec="ascii", categories=["L", "N"])))
def test_a_password_in_a_url_never_survives(password: str) -> None:
    assert password not in redact_text(f"x kafka://name:{password}@broker:9092 y").replace("redacted", "")


@dataclass(frozen=True)
class Parcel:
    name: str
    content: bytes
    password: str


def test_values_lose_secrets_and_bytes_at_any_depth(stream: io.StringIO) -> None:
    structlog.get_logger("worker").info(
        "hello",
        password="hunter2",
        sasl_password=SecretStr("hunter2"),
        session_token="hunter2",
        fencing_token=7,
        data=b"\xff\xd8hunter2",
        pixels=np.zeros((2, 3), np.uint8),
        nested={"headers": {"Authorization": "hunter2", "accept": ["a", b"bc"]}},
        parcel=Parcel("box", b"hunter2", "hunter2"),
        path=Path("/images/a.png"),
        score=np.float32(2.5),
        odd=float("nan"),
        thing=object(),
    )

    (event,) = events(stream)
    assert "hunter2" not in stream.getvalue()
    assert event["fencing_token"] == 7
    assert event["data"] == "<9 bytes>"
    assert event["pixels"] == "<6 bytes>"
    assert event["nested"] == {"headers": {"Authorization": "[redacted]", "accept": ["a", "<2 bytes>"]}}
    assert event["parcel"] == {"name": "box", "content": "<7 bytes>", "password": "[redacted]"}
    assert (event["path"], event["score"], event["odd"]) == ("/images/a.png", 2.5, "nan")
    assert event["thing"] == "<object>"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.binary(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_whatever_is_logged_the_line_is_json(value: object) -> None:
    stream = io.StringIO()
    configure_logging(TelemetrySettings(), stream)
    structlog.get_logger("worker").info("event", value=value)

    (line,) = stream.getvalue().splitlines()
    json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))


def test_the_console_is_for_people_and_cannot_be_forged() -> None:
    stream = io.StringIO()
    configure_logging(TelemetrySettings(log_format="console"), stream)
    structlog.get_logger("worker").warning("image_refused", key="a\n2026-01-01 [error] forged\x1b[2J")

    (line,) = stream.getvalue().splitlines()
    assert "image_refused" in line
    assert "\x1b" not in line


def test_the_death_of_a_thread_is_an_event(stream: io.StringIO) -> None:
    thread = threading.Thread(target=fail, args=(RuntimeError("no more"),), name="prepare-1")
    thread.start()
    thread.join()

    (event,) = events(stream)
    assert (event["event"], event["thread"], event["level"]) == ("thread_died", "prepare-1", "error")
    assert "RuntimeError: no more" in str(event["exception"])


def test_a_logger_in_use_follows_when_logging_is_configured_again(stream: io.StringIO) -> None:
    logger = structlog.get_logger("worker.intake.loop")
    logger.info("before")
    second = io.StringIO()
    configure_logging(TelemetrySettings(), second)
    with structlog.testing.capture_logs() as captured:
        logger.info("after")
    assert [entry["event"] for entry in captured] == ["after"]
    logger.info("at last")
    assert [event["event"] for event in events(second)] == ["at last"]
    assert [event["event"] for event in events(stream)] == ["before"]
