"""Returns items to their queue when their assignee may no longer decide.

The route that removes a user does so at once. This loop covers what the route misses: Kafka was down at that moment,
another process changed the users' file, or somebody assigned an item at the same time.
"""

import threading
from typing import Final

import structlog

from worker.review.desk_api import DeskApi
from worker.review.http.accounts import Accounts
from worker.review.http.app_context import SYSTEM_ACTOR

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 10.0


class OrphanedAssignments:
    """A loop for a supervisor: looks at once, then every `look_seconds`."""

    def __init__(self, accounts: Accounts, desk: DeskApi, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._accounts = accounts
        self._desk = desk
        self._look_seconds = look_seconds

    def run(self, stop: threading.Event) -> None:
        """Raises what the desk and the users' file raise; safe to run again."""
        while not stop.is_set():
            for name in self._accounts.without_decisions():
                if items := self._desk.unassign(name, SYSTEM_ACTOR):
                    log.info("items_unassigned", assignee=name, items=items)
            stop.wait(self._look_seconds)
