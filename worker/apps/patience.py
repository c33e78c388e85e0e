"""Waits for servers that an application needs before it can start."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from worker.intake.log import LogError, LogRefused

log = structlog.get_logger(__name__)

PATIENCE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0

T = TypeVar("T")


def patiently(
    work: Callable[[], T],
    faults: tuple[type[Exception], ...],
    *,
    patience_seconds: float,
    retry_seconds: float,
    tell: Callable[[Exception], object] = lambda _error: None,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Calls `work` until it raises none of `faults`, and returns its result. `tell` is called with each fault. Raises
    the fault when the time is up, when `stopping`, or at once if it is a LogRefused, which waiting does not fix.
    """
    deadline = clock() + patience_seconds
    while True:
        try:
            return work()
        except faults as error:
            if isinstance(error, LogRefused) or clock() >= deadline or stopping():
                raise
            tell(error)
        sleep(retry_seconds)


def once_kafka_answers(
    open_it: Callable[[], T],
    *,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Calls `open_it` until it raises no LogError, for up to PATIENCE_SECONDS, and returns its result.

    Serve stops trying a deployment whose replicas fail three times before one has run. So a replica that starts before
    Kafka, or before the topics exist, must wait instead of failing. Raises LogError when the time is up or when
    `stopping`, and LogRefused (a missing permission, a wrong password) at once.
    """
    return patiently(
        open_it,
        (LogError,),
        patience_seconds=PATIENCE_SECONDS,
        retry_seconds=RETRY_SECONDS,
        tell=lambda error: log.warning("waiting_for_kafka", error=str(error)),
        stopping=stopping,
        clock=clock,
        sleep=sleep,
    )
