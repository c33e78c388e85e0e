"""Finding items in the catalogue."""

import time
from typing import Any, Final

from worker.review.answers import Query
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.text import match_expression
from worker.review.errors import NotPossible

SECONDS: Final = 5.0
"""The time limit of a search."""
_CHECK_EVERY: Final = 10_000
"""Steps of SQLite's machine between looks at the time."""


def find(
    catalogue: Catalogue, query: Query, *, limit: int, cursor: str | None, with_notes: bool
) -> tuple[list[str], str | None]:
    """Ids of the items that match, in order, at most `limit` of them, and the cursor of the next ones; None at the end.

    `with_notes`: words are looked for in notes too. Raises NotPossible for a cursor that is none, or a search that
    takes too long; LogError.
    """
    columns = ("prompt", "ids", "notes") if with_notes else ("prompt", "ids")
    conditions, values = _conditions(query)
    source = "items"
    if query.text is not None:
        expression = match_expression(query.text, columns)
        if expression is None:
            return [], None
        source = "texts CROSS JOIN items ON items.id = texts.rowid"
        conditions.insert(0, "texts MATCH ?")
        values.insert(0, expression)
    key = "items.id" if query.text is None else "texts.rowid"
    if cursor is not None:
        conditions.append(f"{key} {'>' if query.oldest_first else '<'} ?")
        values.append(_row_id(cursor))
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    order = "ASC" if query.oldest_first else "DESC"
    deadline = time.monotonic() + SECONDS
    with catalogue.reader() as db:
        db.set_progress_handler(lambda: time.monotonic() > deadline, _CHECK_EVERY)
        try:
            rows = db.execute(
                # made of constants; what is looked for is bound
                f"SELECT items.id, items.item_id FROM {source} {where} ORDER BY {key} {order} LIMIT ?",  # noqa: S608
                (*values, limit + 1),
            ).fetchall()
        except Exception as error:
            if time.monotonic() > deadline:
                raise NotPossible(
                    f"the search took more than {SECONDS:.0f} s; say more of what you look for"
                ) from error
            raise
        finally:
            db.set_progress_handler(None, 0)
    more = str(rows[limit - 1][0]) if len(rows) > limit else None
    return [item_id for _, item_id in rows[:limit]], more


def _conditions(query: Query) -> tuple[list[str], list[Any]]:
    wanted: list[tuple[str, Any]] = [
        ("items.queue = ?", query.queue),
        ("items.status = ?", query.status),
        ("items.tenant = ?", query.tenant),
        ("items.generator = ?", query.generator),
        ("items.event_id = ?", query.event_id),
        ("items.content_hash = ?", query.content_hash),
        ("items.quality >= ?", query.min_quality),
        ("items.quality <= ?", query.max_quality),
        ("items.id >= ?", None if query.since is None else int(query.since.timestamp() * 1_000_000)),
        ("items.id < ?", None if query.until is None else int(query.until.timestamp() * 1_000_000)),
    ]
    wanted += [
        ("items.id IN (SELECT id FROM marks WHERE kind = 'label' AND value = ?)", query.label),
        ("items.id IN (SELECT id FROM marks WHERE kind = 'reviewer' AND value = ?)", query.reviewer),
        ("items.id IN (SELECT id FROM marks WHERE kind = 'outcome' AND value = ?)", query.outcome),
    ]
    given = [(condition, value) for condition, value in wanted if value is not None]
    return [condition for condition, _ in given], [value for _, value in given]


def _row_id(cursor: str) -> int:
    try:
        row_id = int(cursor)
    except ValueError:
        row_id = -1
    if not 0 <= row_id < 2**63:
        raise NotPossible("the cursor is none that a search has given")
    return row_id
