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
    """All items, newest first, optionally of one queue or status. `leased_by` is always None."""
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
