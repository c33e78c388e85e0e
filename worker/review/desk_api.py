"""The review desk as the HTTP API and the command line use it."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from schemas import ImageReference, Vote
from worker.review.answers import (
    Choice,
    Decided,
    DeskEvent,
    Found,
    ItemView,
    Lease,
    Query,
    QueueOverview,
    Statistics,
)
from worker.review.errors import DeskError


class DeskApi(Protocol):
    """What the desk does for people; `worker.review.desk.Desk` does it.

    All methods are safe for many threads and many processes, and block (call them from a thread). Every method may
    raise LogError or redis.RedisError when a server is away. `actor` is who does it; who may is the caller's business.
    """

    def queues(self) -> list[QueueOverview]: ...

    def lease(
        self,
        queue: str,
        reviewer: str,
        *,
        count: int = 1,
        escalated: bool = False,
        skipped: bool = False,
        request_id: str | None = None,
    ) -> list[Lease]:
        """The next items for this reviewer: those assigned to them first, then what is due first. Fewer than `count`,
        or none, when there are no more, or when `request_id` was withdrawn. `escalated` ones are for leads;
        `skipped` ones are those that this reviewer skipped and nobody has settled since. Raises NotReady."""
        ...

    def take(self, item_id: str, reviewer: str) -> Lease:
        """That very item, to decide it out of turn. Raises UnknownItem, NotPossible (also when another has it)."""
        ...

    def heartbeat(self, item_id: str, token: int, reviewer: str) -> datetime:
        """Keeps the lease; until when it now lasts. Raises LeaseLost."""
        ...

    def release(self, token: int, reviewer: str) -> None:
        """Gives back what was leased, unjudged; nothing is recorded against it. A lost lease is no error."""
        ...

    def withdraw(self, request_id: str, reviewer: str) -> None:
        """Gives back what `lease` granted under this id, or is about to: the reviewer left before the answer came."""
        ...

    def decide(self, choice: Choice, reviewer: str) -> Decided:
        """Votes on a leased item and its near duplicates, or skips, holds or escalates them; returns when the log has
        it.

        Idempotent by `decision_id`. Raises LeaseLost, NotPossible, NotRecorded.
        """
        ...

    def bulk_decide(self, choices: Sequence[Choice], reviewer: str) -> list[Decided | DeskError]:
        """As `decide`, for many at once, each with its own outcome."""
        ...

    def undo(self, decision_id: str, reviewer: str) -> Lease:
        """Takes back an action of the reviewer's own, of any kind that `decide` takes, within `review.undo_seconds` and
        while nothing else has happened to the item; it is leased to them again. Idempotent: asked again, also later,
        the answer is that lease, or another one where it has run out and nobody else has the item. Raises NotPossible,
        NotRecorded."""
        ...

    def skip(
        self, item_id: str, token: int, reviewer: str, *, labels: Sequence[str] = (), note: str | None = None
    ) -> None:
        """This reviewer does not get the item again, others do. Raises LeaseLost, NotRecorded."""
        ...

    def hold(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        """Sets the item aside until it is reopened; under a lease (`token`), or as a lead, whoever has it.

        Raises UnknownItem, LeaseLost, NotPossible, NotRecorded.
        """
        ...

    def escalate(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        """Passes the item on to leads. As `hold`."""
        ...

    def assign(self, item_id: str, assignee: str | None, actor: str) -> None:
        """Only the assignee gets the item from now on; None: everybody again. Raises UnknownItem, NotPossible, …"""
        ...

    def unassign(self, assignee: str, actor: str) -> int:
        """Makes the open items of an assignee who may no longer decide available to everybody; returns how many.
        Raises NotRecorded."""
        ...

    def reopen(self, item_id: str, actor: str, *, note: str | None = None) -> None:
        """Open again, without votes: a settled, held, escalated or gold item. Raises UnknownItem, NotPossible, …"""
        ...

    def split(self, item_ids: Sequence[str], actor: str, *, token: int | None = None) -> None:
        """Parts the items from their near duplicates: each is judged alone from now on. Under a lease (`token`) the
        rest of it stays leased. Raises UnknownItem, LeaseLost, NotRecorded."""
        ...

    def mark_gold(self, item_id: str, answer: Vote, actor: str) -> None:
        """The item tests reviewers from now on. Raises UnknownItem, NotRecorded."""
        ...

    def image(self, item_id: str) -> tuple[ImageReference, str | None] | None:
        """Where the item's image is, and its content hash; None when the event named no image, or the log keeps an
        inline one no more (items carry no bytes). Raises UnknownItem."""
        ...

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None, blind_to: str | None = None) -> Found:
        """Items by when they came, the newest first unless asked otherwise. `blind_to` as for `item`.

        Raises NotPossible for a broken cursor.
        """
        ...

    def item(self, item_id: str, *, blind_to: str | None = None) -> ItemView:
        """An item with its history; `blind_to` a reviewer who must not see others' votes while it is not settled, nor
        that it is gold. Raises UnknownItem."""
        ...

    def statistics(self, *, hours: int = 24) -> Statistics: ...

    def events(self, stop: threading.Event) -> Iterator[Sequence[DeskEvent]]:
        """What happens from now on, at all desks, as much at a time as happened within a quarter of a second; nothing
        each second in which nothing does. Ends when `stop` is set."""
        ...

    def record(self, actor: str, action: str, *subjects: str, detail: Mapping[str, str] | None = None) -> None:
        """Writes an action that is not the desk's own (a sign-in, a changed role) to the audit topic. LogError."""
        ...

    def close(self) -> None: ...
