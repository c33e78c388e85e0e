"""Structured logs: one event a line, without secrets and without image bytes.

Ours and the libraries' records pass the same processors: libraries from WARNING on and not more than a few times a
minute, ours from the level that is set.
"""

import dataclasses
import logging
import math
import re
import sys
import threading
from collections.abc import Mapping, Sequence, Set
from datetime import date, datetime
from enum import Enum
from pathlib import PurePath
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from worker.settings import TelemetrySettings
from worker.telemetry.repeat_limit import RepeatLimit

_OUR_PACKAGES = ("worker", "trt_build")
_REDACTED = "[redacted]"
_MAX_TEXT = 16_384
_MAX_DEPTH = 6
_MAX_ITEMS = 100

_SECRET_KEY = re.compile(
    r"passw(or)?d|passphrase|secret|authorization|cookie|credential|api[_-]?key|access[_-]?key|private[_-]?key"
    r"|(^|[_-])(session|access|security|bearer|auth|id|refresh)?[_-]?token$",
    re.IGNORECASE,
)
_PROCESSOR_KEYS = frozenset({"_record", "_from_structlog"})
_NOT_SECRET_KEYS = frozenset({"fencing_token"})
_URL = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]{1,20}://)(?P<rest>[^\s\"'<>?#]*)(?:(?P<mark>[?#])\S+)?", re.IGNORECASE)
_PAIR = re.compile(
    r"(?P<name>(?:passw(?:or)?d|passphrase|secret|credential|signature|api[_-]?key|access[_-]?key|authorization|cookie"
    r"|(?:session|access|security|bearer|auth|id|refresh)[_-]?token|[?&](?:token|sig|code)\b)"
    r"[\w-]{0,32}[\"']?\s{0,4}[:=]\s{0,4})"
    r"(?P<value>[\"'][^\"']*[\"']|(?:(?:bearer|basic|digest|token)\s+)?[^\s,;&\"']+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"\b(?P<scheme>bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}", re.IGNORECASE)
_BYTES_LITERAL = re.compile(r"\bb(?P<quote>['\"])(?:\\.|(?!(?P=quote))[^\\])*(?P=quote)", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

_processors: list[Processor] = []
"""One list for good: a logger keeps the one of its first use, and must follow when logging is configured again."""


def configure_logging(settings: TelemetrySettings, stream: TextIO | None = None) -> None:
    """Sends all logs to `stream` (stderr by default, so that a command's output stays clean). May be called again."""
    stream = stream or sys.stderr
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
        )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(RepeatLimit(_OUR_PACKAGES))
    level = logging.getLevelNamesMapping()[settings.log_level]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
    for package in _OUR_PACKAGES:
        logging.getLogger(package).setLevel(level)
    logging.captureWarnings(True)
    _processors[:] = [structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter]
    structlog.configure(
        processors=_processors,
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    threading.excepthook = _log_thread_death


def redact(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Takes out secrets (by key, and inside text: URLs' credentials and query strings, `name=value` pairs, bearer
    tokens) and bytes (only their count stays), and makes control characters visible."""
    return {
        key: value if key in _PROCESSOR_KEYS else _REDACTED if _is_secret(key) else _clean(value, key == "exception", 0)
        for key, value in event.items()
    }


def redact_text(text: str) -> str:
    """`text` without secrets, bytes literals or terminal control characters; cut at 16,384 characters."""
    if len(text) > _MAX_TEXT:
        text = f"{text[:_MAX_TEXT]}… ({len(text)} characters)"
    text = _BYTES_LITERAL.sub("<bytes>", text)
    text = _URL.sub(_redact_url, text)
    text = _PAIR.sub(lambda pair: pair["name"] + _REDACTED, text)
    text = _BEARER.sub(lambda token: f"{token['scheme']} {_REDACTED}", text)
    return _CONTROL.sub(lambda control: f"\\x{ord(control[0]):02x}", text)


def _redact_url(url: re.Match[str]) -> str:
    authority, slash, path = url["rest"].partition("/")
    credentials, at, host = authority.rpartition("@")
    return (
        url["scheme"]
        + (f"{_REDACTED}@" if credentials or at else "")
        + host
        + slash
        + path
        + (f"{url['mark']}{_REDACTED}" if url["mark"] else "")
    )


def _is_secret(key: str) -> bool:
    return key not in _NOT_SECRET_KEYS and _SECRET_KEY.search(key) is not None


def _clean(value: Any, keep_lines: bool, depth: int) -> Any:
    if getattr(value, "shape", None) == ():  # a NumPy scalar
        value = value.item()
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)  # NaN is not JSON
    if isinstance(value, Enum):
        return _clean(value.value, keep_lines, depth)
    if isinstance(value, str):
        text = redact_text(value)
        return text if keep_lines else text.replace("\n", "\\n")
    if isinstance(value, bytes | bytearray):
        return f"<{len(value)} bytes>"
    if isinstance(nbytes := getattr(value, "nbytes", None), int):  # memoryview, NumPy arrays
        return f"<{nbytes} bytes>"
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, BaseException):
        return _clean(f"{type(value).__name__}: {value}", keep_lines, depth)
    if isinstance(value, PurePath):
        return _clean(str(value), keep_lines, depth)
    if depth == _MAX_DEPTH:
        return f"<{type(value).__name__}>"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            _clean(str(key), False, depth + 1): _REDACTED
            if _is_secret(str(key))
            else _clean(item, keep_lines, depth + 1)
            for key, item in list(value.items())[:_MAX_ITEMS]
        }
    if isinstance(value, Sequence | Set):
        return [_clean(item, keep_lines, depth + 1) for item in list(value)[:_MAX_ITEMS]]
    return f"<{type(value).__name__}>"  # its repr may hold anything


def _log_thread_death(args: threading.ExceptHookArgs) -> None:
    if args.exc_value is not None and not isinstance(args.exc_value, SystemExit):
        name = args.thread.name if args.thread else None
        structlog.get_logger(__name__).error("thread_died", thread=name, exc_info=args.exc_value)
