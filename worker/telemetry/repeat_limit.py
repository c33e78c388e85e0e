"""Limits repeated log messages of libraries."""

import logging
import re
import threading
import time
from collections.abc import Callable

SHOWN = 3
WINDOW_SECONDS = 60.0
MAX_MESSAGES = 500
_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


class RepeatLimit(logging.Filter):
    """Lets the first three records of a message pass in each minute, and says with the next one how many it left out.

    A message is a logger, a level and the text before its arguments are filled in, whatever numbers it holds. Records
    of `exempt` packages always pass. `clock` is monotonic, in seconds. May be called from any thread.
    """

    def __init__(self, exempt: tuple[str, ...], clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._exempt = exempt
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}
        """For each message: when its minute began, and how many records came in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.partition(".")[0] in self._exempt:
            return True
        key = (record.name, record.levelno, _NUMBER.sub("#", str(record.msg)))
        with self._lock:
            now = self._clock()
            since, count = self._seen.get(key, (now, 0))
            left_out = 0
            if now - since >= WINDOW_SECONDS:
                left_out = max(0, count - SHOWN)
                since, count = now, 0
            if len(self._seen) >= MAX_MESSAGES and key not in self._seen:
                self._seen.clear()
            self._seen[key] = (since, count + 1)
        if count >= SHOWN:
            return False
        if left_out:
            record.msg = f"{record.getMessage()} ({left_out} more like it were left out in the minute before)"
            record.args = None
        return True
