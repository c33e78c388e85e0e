"""Finding items: the catalogue says which, the index how they stand."""

from worker.review.answers import Found, Query
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.search import find
from worker.review.view import Views


def search(
    catalogue: Catalogue, views: Views, query: Query, *, limit: int, cursor: str | None, blind_to: str | None
) -> Found:
    """A page of the items that match. Raises NotPossible for a cursor that is none or a search that takes too long."""
    item_ids, more = find(catalogue, query, limit=limit, cursor=cursor, with_notes=blind_to is None)
    return Found(tuple(views.of(item_ids, blind_to=blind_to)), more)
