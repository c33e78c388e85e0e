"""Finding items."""

import math
from collections.abc import Iterator
from typing import Any, Final

import redis

from worker.review.answers import Found, Query
from worker.review.errors import NotPossible
from worker.review.index import keys
from worker.review.index.entry import Entry
from worker.review.index.index import Index
from worker.review.view import Views

SCANNED: Final = 5_000
"""Items looked at for one page; what is rare may need more pages, some of them empty."""
_BATCH: Final = 200

_Place = tuple[float, str]


def search(
    client: redis.Redis,
    index: Index,
    views: Views,
    query: Query,
    *,
    limit: int,
    cursor: str | None,
    blind_to: str | None,
) -> Found:
    """A page of the items that match. Raises NotPossible for a cursor that is none."""
    matching: list[str] = []
    last: _Place | None = None
    scanned = 0
    for places in _batches(client, query, None if cursor is None else _place(cursor)):
        entries = index.entries([item_id for _, item_id in places])
        for last in places:
            scanned += 1
            entry = entries.get(last[1])
            if entry is not None and _matches(entry, query):
                matching.append(last[1])
            if len(matching) >= limit or scanned >= SCANNED:
                return Found(tuple(views.of(matching, blind_to=blind_to)), f"{last[0]!r}|{last[1]}")
    return Found(tuple(views.of(matching, blind_to=blind_to)), None)


def _batches(client: redis.Redis, query: Query, after: _Place | None) -> Iterator[list[_Place]]:
    """Items in the order that is wanted, those that come after a place."""

    def comes(place: _Place) -> bool:
        return after is None or (place > after if query.oldest_first else place < after)

    named = _named(client, query)
    if named is not None:
        yield [place for place in sorted(named, reverse=not query.oldest_first) if comes(place)]
        return
    first, last = ("-inf", "+inf") if query.oldest_first else ("+inf", "-inf")
    begin: Any = first if after is None else after[0]
    start = 0
    while True:
        rows: Any = client.zrange(
            keys.NEWEST,
            begin,
            last,
            desc=not query.oldest_first,
            withscores=True,
            byscore=True,
            offset=start,
            num=_BATCH,
        )
        if not rows:
            return
        start += len(rows)
        places = [(score, item_id.decode()) for item_id, score in rows]
        yield [place for place in places if comes(place)]


def _named(client: redis.Redis, query: Query) -> list[_Place] | None:
    """The items of an event or a content; None when the query names neither."""
    if query.event_id is None and query.content_hash is None:
        return None
    name = keys.event(query.event_id) if query.event_id is not None else keys.content(query.content_hash or "")
    found: Any = client.smembers(name)
    ids = [item_id.decode() for item_id in found]
    scores: Any = client.zmscore(keys.NEWEST, ids) if ids else []
    return [(score or 0.0, item_id) for score, item_id in zip(scores, ids, strict=True)]


def _matches(entry: Entry, query: Query) -> bool:
    item, state = entry.item, entry.state
    if item is None:
        return False
    labels = {*item.labels, *(label for decision in state.counted for label in decision.labels)}
    wanted = (
        query.queue in (None, item.queue),
        query.status in (None, state.status),
        query.tenant in (None, item.tenant),
        query.event_id in (None, item.event_id),
        query.content_hash in (None, item.content_hash),
        query.label is None or query.label in labels,
        query.reviewer is None or any(decision.reviewer == query.reviewer for decision in state.counted),
    )
    if not all(wanted):
        return False
    if query.text is None:
        return True
    notes = [decision.note for decision in state.counted]
    needle = query.text.casefold()
    return any(needle in (text or "").casefold() for text in (item.prompt, item.item_id, item.event_id, *notes))


def _place(cursor: str) -> _Place:
    score, separator, item_id = cursor.partition("|")
    try:
        if separator and math.isfinite(float(score)):
            return float(score), item_id
    except ValueError:
        pass
    raise NotPossible("the cursor is none that a search has given")
