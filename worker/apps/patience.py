"""Waiting for Kafka when an application starts."""

import time
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from worker.intake.log import LogError

log = structlog.get_logger(__name__)

PATIENCE_SECONDS: Final = 600.0
RETRY_SECONDS: Final = 1.0

T = TypeVar("T")


def once_kafka_answers(
    open_it: Callable[[], T],
    *,
    stopping: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """What `open_it` returns, which is called again as long as it raises LogError, for PATIENCE_SECONDS.

    Serve gives up a deployment whose replicas fail three times before one has run, and tries it no more; so one that
    comes up before its Kafka, or before the topics are made, must wait rather than fail. Raises LogError when the time
    is up, or when `stopping`.
    """
    deadline = clock() + PATIENCE_SECONDS
    while True:
        try:
            return open_it()
        except LogError as error:
            if stopping() or clock() >= deadline:
                raise
            log.warning("waiting_for_kafka", error=str(error))
        sleep(RETRY_SECONDS)
