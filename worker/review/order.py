"""The order of items in a queue."""

from datetime import datetime

from schemas import Priority
from worker.settings import ReviewSettings


def due(created_at: datetime, priority: Priority, tenant: str, settings: ReviewSettings) -> float:
    """When the item should be looked at, in seconds since the epoch: what is due first comes first.

    One of priority 100 may wait `patience_minutes`, each point less adds as much, and the tenant's weight divides it.
    So priority, age and weight all count, the order of two items never changes while they wait, and nothing starves:
    whatever comes after an item was due stands behind it.
    """
    patience = settings.patience_minutes * 60 * (101 - priority)
    return created_at.timestamp() + patience / settings.tenant_weights.get(tenant, 1.0)
