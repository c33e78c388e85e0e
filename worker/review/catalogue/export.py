"""All items of a catalogue with their decisions, for files."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

from worker.review.answers import ItemView, Status
from worker.review.catalogue.catalogue import Catalogue
from worker.settings import ReviewSettings

_AT_ONCE: Final = 500


def everything(
    catalogue: Catalogue, settings: ReviewSettings, queue: str | None = None, status: Status | None = None
) -> Iterator[ItemView]:
    """The newest first; of a queue, or with a status, where one is given. Who has an item at the moment is not told."""
    item_ids = catalogue.ids(queue, status)
    for start in range(0, len(item_ids), _AT_ONCE):
        for entry in catalogue.entries(item_ids[start : start + _AT_ONCE]).values():
            item, state = entry.item, entry.state
            if item is None:
                continue
            yield ItemView(
                item=item,
                status=state.status,
                due_at=datetime.fromtimestamp(entry.due, UTC),
                cluster=(),
                assignee=state.assignee,
                leased_by=None,
                votes_cast=len(state.ballots),
                votes_needed=settings.queue(item.queue).agree,
                closed_at=state.closed_at,
                history=state.counted,
            )
