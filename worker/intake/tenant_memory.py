"""Which tenants have sent events recently: whether there is more than one."""

import heapq
import json
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, Protocol

from worker.cache.client import CacheClient
from worker.cache.outage import Outage

MEMORY_SECONDS: Final = 24 * 3600
"""A tenant that has sent nothing for so long is forgotten."""
KEPT: Final = 2
"""So many tenants are remembered, those that sent last: two are enough to know that there are several."""
EXCHANGE_SECONDS: Final = 30.0
"""How often workers tell each other what they have seen."""


class TenantStore(Protocol):
    """Where the workers of a group keep what each has seen. Raises nothing."""

    def exchange(self, seen: Mapping[str, float]) -> Mapping[str, float]:
        """Adds tenants and when each was last seen, in seconds since 1970; returns those that the group remembers."""
        ...


class NoTenantStore:
    """Remembers nothing: a worker that starts knows only what it sees itself."""

    def exchange(self, seen: Mapping[str, float]) -> Mapping[str, float]:
        return seen


class RedisTenants:
    """A sorted set in Redis. While Redis is down, callers do not wait for it."""

    def __init__(self, client: CacheClient, group_id: str) -> None:
        self._client = client
        self._key = f"sluice:tenants:{json.dumps([group_id])}"
        self._outage = Outage("tenants", time.monotonic)

    def exchange(self, seen: Mapping[str, float]) -> Mapping[str, float]:
        if not self._outage.lets_through():
            return seen
        try:
            with self._client.pipeline(transaction=False) as pipeline:
                if seen:
                    pipeline.zadd(self._key, dict(seen), gt=True)
                    pipeline.zremrangebyrank(self._key, 0, -KEPT - 1)
                    pipeline.expire(self._key, MEMORY_SECONDS)
                pipeline.zrange(self._key, 0, -1, withscores=True)
                found = pipeline.execute()[-1]
        except Exception as error:  # noqa: BLE001  # whatever is wrong with Redis, work goes on without it
            self._outage.failed(error)
            return seen
        self._outage.succeeded()
        return {tenant.decode(errors="replace"): at for tenant, at in found}


class TenantMemory:
    """Knows whether several tenants have sent events within MEMORY_SECONDS, to this worker or to others of its group.

    A worker whose store remembers nothing starts as if there were one. For one thread.
    """

    def __init__(
        self, store: TenantStore | None = None, *, clock: Callable[[], float], wall_clock: Callable[[], float]
    ) -> None:
        self._store = store or NoTenantStore()
        self._clock = clock
        self._wall_clock = wall_clock
        self._seen: dict[str, float] = {}
        self._exchange_at = float("-inf")
        self.are_several = False

    def see(self, tenants: Iterable[str]) -> None:
        """Events of these tenants have come."""
        self._seen.update(dict.fromkeys(tenants, self._wall_clock()))
        if len(self._seen) > KEPT:
            self._seen = dict(heapq.nlargest(KEPT, self._seen.items(), key=lambda item: item[1]))
        if len(self._seen) > 1 and not self.are_several:
            self._exchange_at = float("-inf")  # the others should know at once
            self._decide()

    def turn(self) -> None:
        """Exchanges with other workers when it is time. Called in each turn of the loop."""
        now = self._clock()
        if now >= self._exchange_at:
            self._exchange_at = now + EXCHANGE_SECONDS
            self._seen |= self._store.exchange(self._seen)
            self._decide()

    def _decide(self) -> None:
        since = self._wall_clock() - MEMORY_SECONDS
        self._seen = {tenant: at for tenant, at in self._seen.items() if at > since}
        self.are_several = len(self._seen) > 1
