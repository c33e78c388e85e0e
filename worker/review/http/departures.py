"""Brings back what is assigned to local users who decide nothing any more, however they left: the route that removes
somebody does so at once, but the log may be away then, another process may have changed the file, or somebody may have
assigned an item at the same moment."""

import sqlite3
import threading
from typing import Final

import redis
import structlog

from worker.intake.log import LogError
from worker.review.errors import DeskError
from worker.review.face import DeskFace
from worker.review.http.accounts import Accounts
from worker.review.http.door import ITSELF

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 10.0


class Departures:
    """Looks on a thread of its own, first at once, until it is closed."""

    def __init__(self, accounts: Accounts, desk: DeskFace, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._accounts = accounts
        self._desk = desk
        self._look_seconds = look_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="desk-departures", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        down = False
        while not self._stop.is_set():
            try:
                self._look()
                down = False
            except (DeskError, LogError, redis.RedisError, sqlite3.Error) as error:
                if not down:
                    log.warning("departures_interrupted", error=f"{type(error).__name__}: {error}")
                down = True
            self._stop.wait(self._look_seconds)

    def _look(self) -> None:
        for name in self._accounts.without_decisions():
            if items := self._desk.unassign(name, ITSELF):
                log.info("items_unassigned", assignee=name, items=items)
