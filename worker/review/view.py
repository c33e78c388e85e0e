"""Items as a person may see them."""

from collections.abc import Sequence
from datetime import UTC, datetime

import redis

from schemas import Decision
from worker.review.answers import ItemView, Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.errors import UnknownItem
from worker.review.index import keys
from worker.review.index.entry import CUT, Entry
from worker.review.index.index import Index
from worker.review.index.leases import Leases
from worker.review.item_state import CLOSED, VOTES, ItemState
from worker.review.votes import resolution_of_test
from worker.settings import QueueSettings, ReviewSettings


class Views:
    """Builds item views from the index, and where that lacks an item, from the catalogue."""

    def __init__(
        self, client: redis.Redis, index: Index, catalogue: Catalogue, leases: Leases, settings: ReviewSettings
    ) -> None:
        self._catalogue = catalogue
        self._redis = client
        self._index = index
        self._leases = leases
        self._settings = settings

    def of(self, item_ids: Sequence[str], *, blind_to: str | None = None) -> list[ItemView]:
        """The items that exist, in this order: as the index has them, or, those that it does not have yet, as this
        desk's catalogue has them."""
        entries = self._whole(item_ids)
        clusters = [entry.cluster for entry in entries]
        with self._redis.pipeline(transaction=False) as pipeline:
            for cluster in clusters:
                pipeline.smembers(keys.cluster(cluster))
            for cluster in clusters:
                pipeline.get(keys.job(cluster))
            found = pipeline.execute()
        members = [sorted(member.decode() for member in names) for names in found[: len(clusters)]]
        holders = self._leases.holders(found[len(clusters) :])
        return [
            self._view(entry, tuple(together), holder, blind_to)
            for entry, together, holder in zip(entries, members, holders, strict=True)
        ]

    def one(self, item_id: str, *, blind_to: str | None = None) -> ItemView:
        """Raises UnknownItem."""
        found = self.of([item_id], blind_to=blind_to)
        if not found:
            raise unknown(item_id)
        return found[0]

    def _whole(self, item_ids: Sequence[str]) -> list[Entry]:
        found = {item_id: e for item_id, e in self._index.entries(item_ids).items() if e.item is not None}
        partial = [item_id for item_id in item_ids if item_id not in found or CUT in found[item_id].fields]
        for item_id, entry in self._catalogue.entries(partial).items() if partial else ():
            fields = found[item_id].fields if item_id in found else {}
            found[item_id] = Entry({**fields, **entry.fields})
        return [found[item_id] for item_id in item_ids if item_id in found]

    def _view(self, entry: Entry, cluster: tuple[str, ...], holder: str | None, blind_to: str | None) -> ItemView:
        item, state = entry.item, entry.state
        if item is None:
            raise ValueError("an entry without an item")
        rules = self._settings.queue(item.queue)
        status, history, cast, closed_at = state.status, state.counted, len(state.ballots), state.closed_at
        if blind_to is not None and status is Status.GOLD:
            status, history, cast, closed_at = _as_if_ordinary(state, blind_to, rules)
        elif blind_to is not None and status not in CLOSED:
            history = tuple(d for d in history if d.outcome not in VOTES | {"gold"} or d.reviewer == blind_to)
            history = tuple(d.model_copy(update={"resolution": None}) for d in history)
        return ItemView(
            item=item,
            status=status,
            due_at=datetime.fromtimestamp(entry.due, UTC),
            cluster=cluster if entry.lane is not None else (),
            assignee=state.assignee,
            leased_by=holder if entry.lane is not None else None,
            votes_cast=cast,
            votes_needed=rules.agree,
            closed_at=closed_at,
            history=history,
        )


def _as_if_ordinary(
    state: ItemState, reviewer: str, rules: QueueSettings
) -> tuple[Status, tuple[Decision, ...], int, datetime | None]:
    """Status, history, number of votes and closing time that a reviewer sees of a test item: those of an ordinary item
    without other votes."""
    since = max((place for place, d in enumerate(state.counted) if d.outcome == "gold"), default=-1) + 1
    own = [d for d in state.counted[since:] if d.reviewer == reviewer]
    undone = {d.undoes for d in own}
    votes = [d for d in own if d.outcome in VOTES and d.decision_id not in undone]
    if not votes:
        return Status.OPEN, (), 0, None
    vote = votes[-1]
    resolution = resolution_of_test(vote, rules)
    shown = (vote.model_copy(update={"resolution": resolution}),)
    match resolution:
        case "approve":
            return Status.APPROVED, shown, 1, vote.decided_at
        case "reject":
            return Status.REJECTED, shown, 1, vote.decided_at
        case "escalate":
            return Status.ESCALATED, shown, 1, None
    return Status.OPEN, shown, 1, None


def unknown(item_id: str) -> UnknownItem:
    """The error for an item that is not in the index."""
    return UnknownItem(f"there is no item {item_id} in the index: it never came, or was settled long ago")
