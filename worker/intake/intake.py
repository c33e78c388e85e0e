"""Keeps a member of the group running: when one cannot go on, the next starts from what is committed."""

import threading
from collections.abc import Callable

import structlog

from worker.intake.log import Log, LogError
from worker.intake.member import Member, Parts
from worker.judging.retries import RetryPolicy

logger = structlog.get_logger(__name__)

REMIND_SECONDS = 60.0
"""How often a reason that repeats is logged again."""


class Intake:
    """Runs members one after another. The first must be able to open the log: a wrong address is an error at once."""

    def __init__(self, open_log: Callable[[], Log], parts: Parts) -> None:
        settings = parts.settings
        self._open_log = open_log
        self._parts = parts
        self._patience = RetryPolicy(
            settings.max_attempts, settings.retry_base_seconds, settings.retry_max_seconds, float("inf")
        )
        self._member: Member | None = None
        self._trouble: str | None = None
        self._logged = ("", float("-inf"))

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set and what was with the engine is committed.

        Raises LogError when the log cannot be opened at first, and EngineLost when only a new process can judge.
        """
        failures = 0
        opened = False
        while not stop.is_set():
            try:
                log = self._open_log()
                opened = True
                self._member = member = Member(log, self._parts)
                self._trouble = None
                started = self._parts.judging.clock()
                try:
                    member.run(stop.is_set)
                finally:
                    self._member = None
                    ran = self._parts.judging.clock() - started
                    if member.has_committed or ran > self._parts.settings.retry_max_seconds:
                        failures = 0  # what ended it is another fault than the last one
            except LogError as error:
                if not opened:
                    raise
                failures += 1
                delay = self._patience.delay(failures, self._parts.judging.rng)
                self._trouble = str(error)
                self._log_end(error, delay)
                stop.wait(delay)

    def _log_end(self, error: LogError, delay: float) -> None:
        """Logs why a member ended when it is another reason, and once a minute while it repeats."""
        text, at = self._logged
        now = self._parts.judging.clock()
        if str(error) == text and now - at < REMIND_SECONDS:
            return
        self._logged = (str(error), now)
        logger.warning("member_ended", error=str(error), again_in_seconds=round(delay, 3))

    def health_problems(self) -> tuple[str, ...]:
        """What keeps the intake from its work; empty when nothing does. Called from any thread."""
        member, trouble = self._member, self._trouble
        if member is not None:
            return member.health_problems()
        return (trouble,) if trouble else ()

    def log_notes(self) -> tuple[str, ...]:
        """What keeps records back, which is no fault of the worker's. Called from any thread."""
        member = self._member
        return member.log_notes() if member is not None else ()

    def store_outages(self) -> tuple[str, ...]:
        """Image stores that do not answer; their events wait. Called from any thread."""
        member = self._member
        return member.store_outages() if member is not None else ()
