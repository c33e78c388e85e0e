"""Checks periodically that topics and permissions of the worker still exist."""

import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import structlog
from kafka.errors import KafkaError

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError, LogRefused
from worker.preflight.finding import CheckStatus, Finding, blocking, explain
from worker.preflight.kafka import check_permissions
from worker.settings import KafkaSettings
from worker.supervision import Supervisor

log = structlog.get_logger(__name__)

INTERVAL_SECONDS = 10.0
REMIND_SECONDS = 60.0


class KafkaWatch:
    """Checks every few seconds, over one connection, that the topics and permissions still exist.

    kafka-python reports most of these losses only as a timeout. A broker that does not answer is not reported here; the
    member that reads and commits reports that.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        interval_seconds: float = INTERVAL_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._interval = interval_seconds
        self._clock = clock
        self._problems: tuple[str, ...] = ()
        self._told_at = float("-inf")

    def start(self, supervisor: Supervisor) -> None:
        """Starts checking, in a loop of the supervisor."""
        supervisor.start("kafka-watch", self._run)

    def health_problems(self) -> tuple[str, ...]:
        """Topics and permissions that are missing now. May be called from any thread."""
        return self._problems

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(self._interval):
            try:
                self._watch_while_connected(stop)
            except LogRefused as error:
                self._tell((Finding("Kafka", CheckStatus.BLOCKED, str(error)),))
            except (LogError, KafkaError, OSError) as error:
                log.debug("kafka_watch_unanswered", error=str(error))

    def _watch_while_connected(self, stop: threading.Event) -> None:
        with ExitStack() as stack:
            admin: Any = stack.enter_context(admin_client(self._settings))
            while True:
                self._tell(blocking(check_permissions(admin, self._settings)))
                if stop.wait(self._interval):
                    return

    def _tell(self, found: tuple[Finding, ...]) -> None:
        """Logs what is missing: on each change, and once a minute."""
        problems = tuple(map(explain, found))
        now = self._clock()
        if problems and (problems != self._problems or now - self._told_at >= REMIND_SECONDS):
            log.error("kafka_requirements_missing", problems=problems)
            self._told_at = now
        elif self._problems and not problems:
            log.info("kafka_requirements_met_again", were=self._problems)
        self._problems = problems
