"""The audited images of a catalogue."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

from worker.review.answers import Status
from worker.review.catalogue.catalogue import Catalogue
from worker.review.sampling import AUDIT_QUEUE

_BAD = {Status.APPROVED: False, Status.REJECTED: True}


@dataclass(frozen=True, slots=True)
class AuditedItem:
    """A passed image that was drawn for the audit. `bad` is None until it is settled."""

    tenant: str
    model: str
    policy: str
    quality: float
    probability: float
    bad: bool | None
    at: datetime


def audited_items(catalogue: Catalogue, since: datetime) -> list[AuditedItem]:
    """Those drawn from images judged since then, oldest first. Raises LogError."""
    with catalogue.reader() as db:
        rows = db.execute(
            "SELECT id, tenant, quality, status, item FROM items JOIN bodies USING (id)"
            " WHERE id >= ? AND queue = ? ORDER BY id",
            (int(since.timestamp() * 1_000_000), AUDIT_QUEUE),
        ).fetchall()
    found = []
    for row_id, tenant, quality, status, body in rows:
        item = json.loads(body)
        if (draw := item.get("audit")) is not None:
            at = datetime.fromtimestamp(row_id / 1_000_000, UTC)
            bad = _BAD.get(Status(status))
            found.append(
                AuditedItem(tenant, item["model"], item["policy"], quality or 0.0, draw["probability"], bad, at)
            )
    return found
