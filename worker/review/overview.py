"""The queues in numbers."""

from datetime import UTC, datetime, timedelta
from typing import Any

import redis

from worker.review.answers import QueueOverview
from worker.review.index import keys
from worker.settings import ReviewSettings


def overview(client: redis.Redis, settings: ReviewSettings, now: datetime) -> list[QueueOverview]:
    """Every queue that ever had an item or has settings of its own, by name."""
    known: Any = client.smembers(keys.QUEUES)
    names = sorted({name.decode() for name in known} | settings.queues.keys())
    with client.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.zcard(keys.waiting(name))
            pipeline.zcount(keys.leased(name), now.timestamp() * 1000, "+inf")
            pipeline.zcard(keys.lane("escalated", name))
            pipeline.zcard(keys.lane("held", name))
            pipeline.scard(keys.assigned(name))
            pipeline.zrange(keys.waiting(name), 0, 0, withscores=True)
            pipeline.zcount(keys.lane("open", name), "-inf", now.timestamp())
        replies = pipeline.execute()
    found = []
    for place, name in enumerate(names):
        open_, leased, escalated, held, assigned, oldest, overdue = replies[7 * place : 7 * place + 7]
        rules = settings.queue(name)
        oldest_at = datetime.fromtimestamp(oldest[0][1], UTC) if oldest else None
        minutes = rules.decide_within_minutes
        found.append(
            QueueOverview(
                name=name,
                open=open_,
                leased=leased,
                escalated=escalated,
                held=held,
                assigned=assigned,
                oldest_at=oldest_at,
                overdue=overdue,
                agree=rules.agree,
                votes=rules.votes,
                decide_by=None if oldest_at is None or minutes is None else oldest_at + timedelta(minutes=minutes),
            )
        )
    return found
