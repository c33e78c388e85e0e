"""One of many desks does a job at a time."""

from typing import Final

import redis

_HOLD: Final = """
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
_LEAVE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"


class Sole:
    """A claim on a job. Who has not renewed it for `seconds` may lose it; then two may work for a moment, so the work
    must bear being done twice."""

    def __init__(self, client: redis.Redis, key: str, who: str, seconds: float) -> None:
        self._redis = client
        self._key = key
        self._who = who
        self._milliseconds = int(seconds * 1000)
        self._hold = client.register_script(_HOLD)
        self._leave = client.register_script(_LEAVE)

    def hold(self) -> bool:
        """Claims the job or keeps it; whether it is ours."""
        return bool(self._hold(keys=[self._key], args=[self._who, self._milliseconds]))

    def seize(self, seconds: float) -> None:
        """Takes the job, whoever has it."""
        self._redis.set(self._key, self._who, px=int(seconds * 1000))

    def leave(self) -> None:
        """Lets others have the job at once."""
        self._leave(keys=[self._key], args=[self._who])
