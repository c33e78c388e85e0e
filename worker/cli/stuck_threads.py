"""Ends a process whose work is done while threads still wait for a server or device that does not answer."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from worker.cli.errors import show

PATIENCE_SECONDS: Final = 1.0
POOLS: Final = ("sluice-prepare", "sluice-engine")
"""Name prefixes of the threads that fetch images and run the engine. Another process judges their events by now."""


@contextmanager
def ending_stuck_threads(end: Callable[[int], object] = os._exit) -> Iterator[None]:
    """Ends the process shortly after the block if threads that it started are still running. Python itself would wait
    for them: as long as a fetch may take, or for ever if the driver of a lost GPU hangs.
    """
    before = set(threading.enumerate())
    try:
        yield
    except Exception as error:
        if _are_stuck(before):
            code = show(error)
            if code is not None:
                _flush()
                end(code)
        raise
    if _are_stuck(before):
        _flush()
        end(0)


def _are_stuck(before: set[threading.Thread]) -> bool:
    deadline = time.monotonic() + PATIENCE_SECONDS
    started = [thread for thread in threading.enumerate() if thread not in before and thread.name.startswith(POOLS)]
    for thread in started:
        thread.join(max(0.0, deadline - time.monotonic()))
    return any(thread.is_alive() for thread in started)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
