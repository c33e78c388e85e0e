"""Messages that a webhook's receiver did not take, kept in Redis until they are sent again or forgotten."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

import redis
from pydantic import AwareDatetime, BaseModel

from worker.intake.log import Partition
from worker.review.index import keys

MOST: Final = 10_000
"""Of a webhook. Beyond them the oldest is forgotten."""
KEPT: Final = timedelta(days=30)

# KEYS: by time, entries, wanted. ARGV: id, entry, now, oldest time that is kept, how many are kept, seconds to expire.
_ADD: Final = """
redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local old = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
for _, id in ipairs(redis.call('ZRANGE', KEYS[1], 0, -tonumber(ARGV[5]) - 1)) do old[#old + 1] = id end
for _, id in ipairs(old) do
  redis.call('ZREM', KEYS[1], id)
  redis.call('HDEL', KEYS[2], id)
  redis.call('SREM', KEYS[3], id)
end
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, ARGV[6]) end
"""


class UndeliveredMessage(BaseModel):
    """`records` say where what it tells stands in its topic: topic, partition and offset."""

    id: str
    records: tuple[tuple[str, int, int], ...]
    reason: str
    attempts: int
    failed_at: AwareDatetime


class Undelivered:
    """Those of one webhook. `wanted` of them are to be sent again. Any desk may ask; all raise redis.RedisError."""

    def __init__(self, client: redis.Redis, webhook: str) -> None:
        self._redis = client
        self._by_time = keys.undelivered(webhook)
        self._entries = f"{self._by_time}|entries"
        self._wanted = f"{self._by_time}|wanted"
        self._add = client.register_script(_ADD)

    def add(self, message: UndeliveredMessage) -> None:
        """One that failed again is listed with its latest failure, and no longer wanted."""
        now = message.failed_at
        self._redis.srem(self._wanted, message.id)
        self._add(
            keys=[self._by_time, self._entries, self._wanted],
            args=[
                message.id,
                message.model_dump_json(),
                now.timestamp(),
                (now - KEPT).timestamp(),
                MOST,
                int(KEPT.total_seconds()),
            ],
        )

    def remove(self, message_id: str) -> None:
        pipeline = self._redis.pipeline()
        pipeline.zrem(self._by_time, message_id)
        pipeline.hdel(self._entries, message_id)
        pipeline.srem(self._wanted, message_id)
        pipeline.execute()

    def count(self) -> int:
        return int(self._redis.zcard(self._by_time))

    def newest(self, limit: int) -> list[UndeliveredMessage]:
        ids: Any = self._redis.zrevrange(self._by_time, 0, limit - 1)
        return self._loaded(ids)

    def want(self, ids: Sequence[str] | None) -> int:
        """Asks for these to be sent again, or for all; how many of them there are."""
        known: Any = self._redis.zrange(self._by_time, 0, -1)
        asked = None if ids is None else {each.encode() for each in ids}
        chosen = known if asked is None else [each for each in known if each in asked]
        if chosen:
            pipeline = self._redis.pipeline()
            pipeline.sadd(self._wanted, *chosen)
            pipeline.expire(self._wanted, int(KEPT.total_seconds()))
            pipeline.execute()
        return len(chosen)

    def wanted(self, limit: int) -> list[UndeliveredMessage]:
        """Some that are to be sent again."""
        ids: Any = self._redis.srandmember(self._wanted, limit)
        return self._loaded(ids)

    def _loaded(self, ids: Sequence[bytes]) -> list[UndeliveredMessage]:
        found: Any = self._redis.hmget(self._entries, list(ids)) if ids else []
        return [UndeliveredMessage.model_validate_json(each) for each in found if each is not None]


def place_of(partition: Partition, offset: int) -> tuple[str, int, int]:
    return partition.topic, partition.number, offset
