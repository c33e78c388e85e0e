"""A lease on a job that one of many desks does at a time."""

from typing import Final

import redis

_HOLD: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_LEAVE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class SingletonLease:
    """The lease on one job. It expires `seconds` after it was last held. A holder that was too slow may then work at
    the same time as the next one for a moment, so the job must be idempotent."""

    def __init__(self, client: redis.Redis, key: str, holder: str, seconds: float) -> None:
        self._redis = client
        self._key = key
        self._holder = holder
        self._milliseconds = int(seconds * 1000)
        self._hold = client.register_script(_HOLD)
        self._leave = client.register_script(_LEAVE)

    def hold(self) -> bool:
        """Acquires or renews the lease; whether this holder has it."""
        return bool(self._hold(keys=[self._key], args=[self._holder, self._milliseconds]))

    def seize(self, seconds: float) -> None:
        """Takes the lease from whoever holds it, for so many seconds."""
        self._redis.set(self._key, self._holder, px=int(seconds * 1000))

    def leave(self) -> None:
        """Releases the lease, if this holder has it."""
        self._leave(keys=[self._key], args=[self._holder])
