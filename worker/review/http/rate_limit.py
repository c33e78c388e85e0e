"""Counts attempts in Redis, so that guessing a password does not get faster with more desks or at the same time."""

import hashlib
from dataclasses import dataclass
from typing import Final, cast

import redis

_PREFIX: Final = "sluice:desk:attempts:"

# KEYS: count, lock. ARGV: free attempts, first delay, longest delay, how long to remember; milliseconds. An attempt
# sets the delay of the next one at once, so that many at the same moment are no way round.
_TRY: Final = """
local left = redis.call('PTTL', KEYS[2])
if left > 0 then return left end
local attempts = redis.call('INCR', KEYS[1])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
local beyond = attempts - tonumber(ARGV[1])
if beyond >= 0 then
  local delay = math.min(tonumber(ARGV[3]), tonumber(ARGV[2]) * 2 ^ math.min(beyond, 30))
  redis.call('SET', KEYS[2], '1', 'PX', string.format('%.0f', delay))
end
return 0
"""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `most` attempts within `seconds`, counted from the first."""

    name: str
    most: int
    seconds: int

    def take(self, client: redis.Redis, subject: str) -> int:
        """Counts an attempt; the seconds to wait when there were too many, else 0."""
        key = self._key(subject)
        pipeline = client.pipeline()
        pipeline.set(key, 0, ex=self.seconds, nx=True)
        pipeline.incr(key)
        pipeline.ttl(key)
        _, attempts, wait = cast("tuple[object, int, int]", tuple(pipeline.execute()))
        return max(wait, 1) if attempts > self.most else 0

    def give_back(self, client: redis.Redis, subject: str) -> None:
        """Takes back an attempt that turned out to be none that should be limited."""
        key = self._key(subject)
        pipeline = client.pipeline()
        pipeline.set(
            key, 1, ex=self.seconds, nx=True
        )  # it may have run out meanwhile, and must not stay without an end
        pipeline.decr(key)
        pipeline.execute()

    def forget(self, client: redis.Redis, subject: str) -> None:
        client.delete(self._key(subject))

    def _key(self, subject: str) -> str:
        return key_of(self.name, subject)


@dataclass(frozen=True, slots=True)
class GrowingDelay:
    """After `free` attempts each further one must wait twice as long as the one before, from `first_seconds` up to
    `longest_seconds`. Forgotten on success, or `memory_seconds` after the last attempt."""

    name: str
    free: int
    first_seconds: int
    longest_seconds: int
    memory_seconds: int

    def take(self, client: redis.Redis, subject: str) -> int:
        """Counts an attempt; or, when it comes too soon, the seconds to wait, and nothing is counted."""
        key = key_of(self.name, subject)
        delays = (self.first_seconds, self.longest_seconds, self.memory_seconds)
        wait = cast("int", client.eval(_TRY, 2, key, f"{key}:lock", self.free, *(1000 * each for each in delays)))
        return -(-wait // 1000)

    def forget(self, client: redis.Redis, subject: str) -> None:
        key = key_of(self.name, subject)
        client.delete(key, f"{key}:lock")


def key_of(name: str, subject: str) -> str:
    """The key in Redis. Hashed: what people type into a name field may be a password."""
    return f"{_PREFIX}{name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"
