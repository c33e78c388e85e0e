"""The review desk: leases and decisions. No HTTP, no HTML."""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

import redis

from schemas import Decision, ImageReference, InlineReference, Resolution, ReviewItem, Vote
from worker.review import desk_events
from worker.review.answers import (
    Action,
    Choice,
    Decided,
    DeskEvent,
    Found,
    ItemView,
    Lease,
    Query,
    QueueOverview,
    Statistics,
    Status,
)
from worker.review.catalogue.catalogue import Catalogue
from worker.review.decision_ids import derived
from worker.review.errors import DeskError, LeaseLost, NotPossible, NotRecorded
from worker.review.index.entry import Entry
from worker.review.index.index import Index
from worker.review.index.leases import Leases
from worker.review.item_dispatcher import ItemDispatcher
from worker.review.item_state import ItemState, objection
from worker.review.overview import overview
from worker.review.recorder import AuditRecord, PendingDecision, Recorder
from worker.review.search import search
from worker.review.statistics import statistics
from worker.review.topics import Topics
from worker.review.unassign import unassign
from worker.review.undo import Undo
from worker.review.view import Views, unknown
from worker.review.votes import resolution_of_test, settle
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.review.decision_traces import DecisionTraces

RECORDING_SECONDS: Final = 15.0
"""A lease is extended to at least this long while a decision is being stored."""
MAX_DECISION_ID: Final = 200

Command = Literal["skip", "hold", "escalate", "assign", "reopen", "split", "gold"]


class Desk:
    """See worker.review.desk_api.DeskApi. An action counts once the log has stored it."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        client: redis.Redis,
        catalogue: Catalogue,
        *,
        now: Callable[[], datetime] | None = None,
        traces: "DecisionTraces | None" = None,
    ) -> None:
        self._settings = settings.review
        self._topics = topics
        self._redis = client
        self._now = now or _utc_now
        self._catalogue = catalogue
        self._index = Index(client)
        self._leases = Leases(client, settings.review.lease_seconds)
        self._recorder = Recorder(topics, settings.kafka.topics, self._index, self._now, traces)
        self._views = Views(client, self._index, catalogue, self._leases, settings.review)
        self._dispatcher = ItemDispatcher(
            client, self._index, self._leases, self._recorder, self._views, settings.review, self._now
        )
        self._undo = Undo(
            client, self._index, self._leases, self._recorder, self._dispatcher, settings.review, self._now
        )

    def queues(self) -> list[QueueOverview]:
        return overview(self._redis, self._settings, self._now())

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
        leases = self._dispatcher.lease(queue, reviewer, count, escalated=escalated, skipped=skipped)
        if not leases or request_id is None:
            return leases
        if self._leases.answered(request_id, reviewer, [lease.token for lease in leases]):
            return leases
        for lease in leases:
            self.release(lease.token, reviewer)
        return []

    def take(self, item_id: str, reviewer: str) -> Lease:
        entry, item = self._entry(item_id)
        if entry.lane is None or entry.state.status is Status.HELD:
            raise NotPossible(f"the item is {entry.state.status}; reopen it first")
        lane, whose = entry.lane
        if lane == "assigned" and whose != reviewer:
            raise NotPossible(f"the item is assigned to {whose}")
        taken = self._dispatcher.take(entry, item, reviewer)
        if taken is None:
            raise NotPossible("somebody else has the item at the moment")
        return taken

    def heartbeat(self, item_id: str, token: int, reviewer: str) -> datetime:
        return self._leases.extend(token, reviewer, item_id).expires_at

    def release(self, token: int, reviewer: str) -> None:
        grant = self._leases.end(token, reviewer)
        if grant is not None:
            self.record(reviewer, "release", *grant.items)
            desk_events.publish(self._redis, DeskEvent("release", self._now(), grant.queue, grant.items[0], reviewer))

    def withdraw(self, request_id: str, reviewer: str) -> None:
        for token in self._leases.withdraw(request_id, reviewer):
            self.release(token, reviewer)

    def decide(self, choice: Choice, reviewer: str) -> Decided:
        (outcome,) = self.bulk_decide([choice], reviewer)
        if isinstance(outcome, DeskError):
            raise outcome
        return outcome

    def bulk_decide(self, choices: Sequence[Choice], reviewer: str) -> list[Decided | DeskError]:
        outcomes: list[Decided | DeskError | None] = [None] * len(choices)
        ballots: dict[int, list[PendingDecision]] = {}
        for place, choice in enumerate(choices):
            try:
                ballots[place] = self._ballot(choice, reviewer)
            except DeskError as error:
                # One that counted has ended its lease: only what is refused can have been made already.
                outcomes[place] = self._repeated(choice, reviewer) or error
        steps = [step for ballot in ballots.values() for step in ballot]
        try:
            states = self._recorder.commit(steps, reviewer)
        except NotRecorded as error:
            outcomes = [outcome if outcome is not None else error for outcome in outcomes]
        else:
            for place, ballot in ballots.items():
                outcomes[place] = self._decided(ballot, states)
        return [outcome for outcome in outcomes if outcome is not None]

    def undo(self, decision_id: str, reviewer: str) -> Lease:
        return self._undo.undo(decision_id, reviewer)

    def skip(
        self, item_id: str, token: int, reviewer: str, *, labels: Sequence[str] = (), note: str | None = None
    ) -> None:
        self._act(item_id, reviewer, "skip", token, labels=labels, note=note)

    def hold(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        self._act(item_id, actor, "hold", token, labels=labels, note=note)

    def escalate(
        self,
        item_id: str,
        actor: str,
        *,
        token: int | None = None,
        labels: Sequence[str] = (),
        note: str | None = None,
    ) -> None:
        self._act(item_id, actor, "escalate", token, labels=labels, note=note)

    def assign(self, item_id: str, assignee: str | None, actor: str) -> None:
        self._act(item_id, actor, "assign", None, assignee=assignee)

    def unassign(self, assignee: str, actor: str) -> int:
        return unassign(self._redis, self._index, self._recorder, assignee, actor)

    def reopen(self, item_id: str, actor: str, *, note: str | None = None) -> None:
        self._act(item_id, actor, "reopen", None, note=note)

    def split(self, item_ids: Sequence[str], actor: str, *, token: int | None = None) -> None:
        parted = list(dict.fromkeys(item_ids))
        if not parted:
            return
        if token is not None:
            grant = self._leases.extend(token, actor, parted[0], RECORDING_SECONDS)
            if grant.items[0] in parted:  # who parts the one that is looked at parts all others from it
                parted = list(grant.items[1:])
            self._leases.shrink(token, parted)
        fresh = self._leases.token()
        steps = []
        for item_id in parted:
            entry, item = self._entry(item_id)
            steps.append(PendingDecision(entry, item, self._recorder.decision(item, actor, "split", fresh)))
        self._recorder.commit(steps, actor)

    def mark_gold(self, item_id: str, answer: Vote, actor: str) -> None:
        self._act(item_id, actor, "gold", None, resolution=answer)

    def image(self, item_id: str) -> tuple[ImageReference, str | None] | None:
        entry, item = self._entry(item_id)
        reference = item.image
        if isinstance(reference, InlineReference):
            reference = self._inline_image(item_id, entry)
        return (reference, item.content_hash) if reference is not None else None

    def _inline_image(self, item_id: str, entry: Entry) -> ImageReference | None:
        """An image that came within its event, from the item's record. That is written again before the log deletes it:
        this desk's catalogue may know of the new one before the index does."""
        for known in (entry, self._catalogue.entries([item_id]).get(item_id)):
            record = self._topics.record(*known.at) if known is not None else None
            if record is not None and record.value is not None:
                return ReviewItem.model_validate_json(record.value).image
        return None

    def search(self, query: Query, *, limit: int = 50, cursor: str | None = None, blind_to: str | None = None) -> Found:
        return search(self._catalogue, self._views, query, limit=limit, cursor=cursor, blind_to=blind_to)

    def item(self, item_id: str, *, blind_to: str | None = None) -> ItemView:
        return self._views.one(item_id, blind_to=blind_to)

    def statistics(self, *, hours: int = 24) -> Statistics:
        return statistics(self._redis, self._catalogue, self._now(), hours)

    def events(self, stop: threading.Event) -> Iterator[Sequence[DeskEvent]]:
        return desk_events.subscribe(self._redis, stop)

    def record(self, actor: str, action: str, *subjects: str, detail: Mapping[str, str] | None = None) -> None:
        self._recorder.note([AuditRecord(actor, action, subjects, detail)])

    def close(self) -> None:
        self._topics.close()

    def _repeated(self, choice: Choice, reviewer: str) -> Decided | None:
        """The answer to a decision that was recorded before, possibly by a desk that died before it answered."""
        entry = self._index.entries([choice.item_id]).get(choice.item_id)
        counted = entry.state.counted if entry is not None else ()
        made = next((d for d in counted if d.decision_id == choice.decision_id), None)
        if made is None or made.reviewer != reviewer:
            return None
        # An index that was rebuilt since does not know what else it covered.
        covered = tuple(self._undo.covered(choice.decision_id)) or (choice.item_id,)
        return self._answer(made, covered, entry.state.status if entry is not None else None)

    def _ballot(self, choice: Choice, reviewer: str) -> list[PendingDecision]:
        """The action on each item of the lease to which it can be done, the one looked at first.

        Raises LeaseLost, NotPossible.
        """
        if len(choice.decision_id) > MAX_DECISION_ID:
            raise NotPossible(f"a decision id has at most {MAX_DECISION_ID} characters")
        now = self._now()
        grant = self._leases.extend(choice.token, reviewer, choice.item_id, RECORDING_SECONDS)
        if choice.item_id != grant.items[0]:
            raise NotPossible(f"the lease is on {grant.items[0]}; {choice.item_id} is its near duplicate")
        steps = []
        for item_id, entry in self._index.entries(grant.items).items():
            if entry.item is None:
                continue
            is_first = item_id == choice.item_id
            decision = self._recorder.decision(
                entry.item,
                reviewer,
                choice.outcome,
                choice.token,
                decision_id=choice.decision_id if is_first else derived(choice.decision_id, item_id),
                resolution=self._resolution(entry.state, entry.item, choice.outcome),
                labels=choice.labels,
                note=choice.note,
                decided_with=None if is_first else choice.item_id,
                seconds_spent=choice.seconds_spent,
                decided_at=min(choice.decided_at or now, now),
            )
            why = objection(entry.state, decision)
            if why is None:
                steps.append(PendingDecision(entry, entry.item, decision))
            elif is_first:
                raise NotPossible(why)
        return steps

    def _resolution(self, state: ItemState, item: ReviewItem, vote: Action) -> Resolution | None:
        if state.status is Status.GOLD or (vote != "approve" and vote != "reject"):
            return None
        if state.status is Status.ESCALATED:
            return vote
        return settle([*(ballot.vote for ballot in state.ballots), vote], self._settings.queue(item.queue))

    def _decided(self, ballot: Sequence[PendingDecision], states: Mapping[str, ItemState]) -> Decided | DeskError:
        first = ballot[0].decision
        state = states[first.item_id]
        if all(d.decision_id != first.decision_id for d in state.counted):
            return LeaseLost("the item was taken away while the log took the decision, which therefore does not count")
        return self._answer(first, tuple(step.item.item_id for step in ballot), state.status)

    def _answer(self, made: Decision, item_ids: tuple[str, ...], status: Status | None) -> Decided:
        resolution = made.resolution
        if status is Status.GOLD:  # it must look as any other item would to the first who votes on it
            resolution = resolution_of_test(made, self._settings.queue(made.queue))
        until = made.decided_at + timedelta(seconds=self._settings.undo_seconds)
        return Decided(made.decision_id, item_ids, resolution, until)

    def _act(
        self,
        item_id: str,
        actor: str,
        outcome: Command,
        token: int | None,
        *,
        labels: Sequence[str] = (),
        note: str | None = None,
        assignee: str | None = None,
        resolution: Resolution | None = None,
    ) -> None:
        """Under a lease it is done to all that the lease covers, otherwise to the one item."""
        if token is None:
            item_ids: tuple[str, ...] = (item_id,)
            fence = self._leases.token()
        else:
            item_ids = self._leases.extend(token, actor, item_id, RECORDING_SECONDS).items
            fence = token
        steps = []
        for each in item_ids:
            entry, item = self._entry(each)
            if token is None and entry.state.status is Status.GOLD and outcome in ("hold", "escalate"):
                raise NotPossible("the item is a test item; reopen it first")
            decision = self._recorder.decision(
                item,
                actor,
                outcome,
                fence,
                labels=tuple(labels),
                note=note,
                assignee=assignee,
                resolution=resolution,
            )
            why = objection(entry.state, decision)
            if why is None:
                steps.append(PendingDecision(entry, item, decision))
            elif each == item_id:
                raise NotPossible(why)
        self._recorder.commit(steps, actor)

    def _entry(self, item_id: str) -> tuple[Entry, ReviewItem]:
        entry = self._index.entries([item_id]).get(item_id)
        if entry is None or entry.item is None:
            raise unknown(item_id)
        return entry, entry.item


def _utc_now() -> datetime:
    return datetime.now(UTC)
