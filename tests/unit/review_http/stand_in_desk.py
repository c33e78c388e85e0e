"""A desk without log and index, for the HTTP layer alone: answers as the real one does, and keeps what it was told."""

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from schemas import Decision, FileReference, ImageReference, ReviewItem, Scores, Source, Vote
from worker.review.answers import (
    AuditMisses,
    Choice,
    Decided,
    DeskEvent,
    Found,
    HourOfWork,
    ItemView,
    Lease,
    Query,
    QueueOverview,
    ReviewerStatistics,
    Share,
    Statistics,
    Status,
)
from worker.review.errors import DeskError, LeaseLost, NotPossible, UnknownItem

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def review_item(item_id: str, path: str = "/nowhere.jpg", quality: float = 1.8) -> ReviewItem:
    return ReviewItem(
        item_id=item_id,
        verdict_id=item_id,
        event_id=f"event-{item_id}",
        tenant="acme",
        queue="quality",
        priority=60,
        created_at=NOW,
        image=FileReference(path=path),
        content_hash=None,
        prompt="a fox in the snow",
        generator="sd-1.5",
        scores=Scores(quality=quality, anchors=(0.4, 0.3, 0.2, 0.07, 0.03), coarse_share=0.6),
        labels=("poor",),
        rule="poor",
        model="sha256:" + "a" * 64,
        policy="sha256:" + "b" * 64,
        source=Source(topic="images.in", partition=0, offset=0),
    )


class StandInDesk:
    def __init__(self, items: Sequence[ReviewItem] = ()) -> None:
        self.items = {item.item_id: item for item in items}
        self.status = {item.item_id: Status.OPEN for item in items}
        self.leases: dict[str, tuple[str, int]] = {}
        self.decisions: dict[str, Decision] = {}
        self.recorded: list[tuple[str, str, dict[str, str]]] = []
        self.calls: list[tuple[object, ...]] = []
        self.happened: list[DeskEvent] = []
        self._token = 0
        self._lock = threading.RLock()

    def queues(self) -> list[QueueOverview]:
        waiting = [item for item in self.items if self.status[item] is Status.OPEN]
        oldest = NOW if waiting else None
        return [QueueOverview("quality", len(waiting), len(self.leases), 0, 0, 0, oldest, 0, 1, 1)]

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
        with self._lock:
            free = [i for i in self.items if self.status[i] is Status.OPEN and i not in self.leases][:count]
            return [self._lease(item_id, reviewer) for item_id in free]

    def take(self, item_id: str, reviewer: str) -> Lease:
        self._known(item_id)
        return self._lease(item_id, reviewer)

    def heartbeat(self, item_id: str, token: int, reviewer: str) -> datetime:
        self._held(item_id, token, reviewer)
        return NOW + timedelta(minutes=2)

    def release(self, token: int, reviewer: str) -> None:
        self.leases = {item_id: held for item_id, held in self.leases.items() if held[1] != token}

    def withdraw(self, request_id: str, reviewer: str) -> None:
        self.calls.append(("withdraw", request_id, reviewer))

    def decide(self, choice: Choice, reviewer: str) -> Decided:
        assert choice.outcome in ("approve", "reject"), "the stand-in takes votes alone"
        with self._lock:
            if choice.decision_id not in self.decisions:
                self._held(choice.item_id, choice.token, reviewer)
                item = self._known(choice.item_id)
                self.decisions[choice.decision_id] = Decision(
                    decision_id=choice.decision_id,
                    item_id=item.item_id,
                    verdict_id=item.verdict_id,
                    event_id=item.event_id,
                    tenant=item.tenant,
                    queue=item.queue,
                    reviewer=reviewer,
                    outcome=choice.outcome,
                    labels=choice.labels,
                    note=choice.note,
                    decided_at=NOW,
                    fencing_token=choice.token,
                    resolution=choice.outcome,
                )
                self.status[choice.item_id] = Status.APPROVED if choice.outcome == "approve" else Status.REJECTED
                del self.leases[choice.item_id]
            return Decided(choice.decision_id, (choice.item_id,), choice.outcome, NOW + timedelta(seconds=10))

    def bulk_decide(self, choices: Sequence[Choice], reviewer: str) -> list[Decided | DeskError]:
        answers: list[Decided | DeskError] = []
        for choice in choices:
            try:
                answers.append(self.decide(choice, reviewer))
            except DeskError as error:
                answers.append(error)
        return answers

    def undo(self, decision_id: str, reviewer: str) -> Lease:
        decision = self.decisions.pop(decision_id, None)
        if decision is None:
            raise UnknownItem("there is no such decision")
        if decision.reviewer != reviewer:
            raise NotPossible("somebody else decided that")
        self.status[decision.item_id] = Status.OPEN
        return self._lease(decision.item_id, reviewer)

    def skip(
        self, item_id: str, token: int, reviewer: str, *, labels: Sequence[str] = (), note: str | None = None
    ) -> None:
        self._held(item_id, token, reviewer)
        del self.leases[item_id]

    def hold(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        self._note("hold", item_id, actor, token, note)

    def escalate(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        self._note("escalate", item_id, actor, token, note)

    def assign(self, item_id: str, assignee: str | None, actor: str) -> None:
        self._note("assign", item_id, actor, assignee)

    def unassign(self, assignee: str, actor: str) -> int:
        self.calls.append(("unassign", assignee, actor))
        return 0

    def reopen(self, item_id: str, actor: str, *, note: str | None = None) -> None:
        self._note("reopen", item_id, actor, note)

    def split(self, item_ids: Sequence[str], actor: str, *, token: int | None = None) -> None:
        self.calls.append(("split", tuple(item_ids), actor, token))

    def image(self, item_id: str) -> tuple[ImageReference, str | None] | None:
        item = self._known(item_id)
        return None if item.image is None else (item.image, item.content_hash)

    def mark_gold(self, item_id: str, answer: Vote, actor: str) -> None:
        self._note("gold", item_id, actor, answer)

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None, blind_to: str | None = None) -> Found:
        self.calls.append(("search", query))
        return Found(tuple(self.item(item_id, blind_to=blind_to) for item_id in list(self.items)[:limit]), None)

    def item(self, item_id: str, *, blind_to: str | None = None) -> ItemView:
        view = self._view(item_id)
        return view if blind_to is None else replace(view, history=())

    def statistics(self, *, hours: int = 24) -> Statistics:
        nothing = Share(0, 0, 0.0, 1.0)
        return Statistics(
            hours=(HourOfWork(NOW, 12, 5, 3, 7, 4),),
            reviewers=(ReviewerStatistics("ana", 5, 3, 0, 0, 1, 4.2, nothing, nothing),),
            cohen_kappa={("ana", "ben"): 0.7},
            fleiss_kappa=0.66,
            audit_misses=(AuditMisses("acme", "sha256:0", "sha256:0", NOW, 44, 40, 1, 0.025, 0.004, 0.13),),
            resolved_after_seconds=31.0,
        )

    def events(self, stop: threading.Event) -> Iterator[Sequence[DeskEvent]]:
        while not stop.wait(0.02):
            yield [self.happened.pop(0) for _ in range(len(self.happened))]

    def record(self, actor: str, action: str, *subjects: str, detail: Mapping[str, str] | None = None) -> None:
        self.recorded.append((actor, action, dict(detail or {})))

    def close(self) -> None: ...

    def _known(self, item_id: str) -> ReviewItem:
        if item_id not in self.items:
            raise UnknownItem(f"there is no item {item_id!r}")
        return self.items[item_id]

    def _held(self, item_id: str, token: int, reviewer: str) -> None:
        if self.leases.get(item_id) != (reviewer, token):
            raise LeaseLost("the lease has run out; the item may be somebody else's now")

    def _lease(self, item_id: str, reviewer: str) -> Lease:
        self._token += 1
        self.leases[item_id] = (reviewer, self._token)
        return Lease("quality", reviewer, self._token, NOW + timedelta(minutes=2), (self._view(item_id),))

    def _view(self, item_id: str) -> ItemView:
        item = self._known(item_id)
        history = tuple(decision for decision in self.decisions.values() if decision.item_id == item_id)
        leased_by = self.leases[item_id][0] if item_id in self.leases else None
        status = self.status[item_id]
        return ItemView(item, status, NOW, (item_id,), None, leased_by, 0, 1, None, history)

    def _note(self, action: str, item_id: str, actor: str, *more: object) -> None:
        self._known(item_id)
        self.calls.append((action, item_id, actor, *more))


def new_id() -> str:
    return uuid.uuid4().hex
