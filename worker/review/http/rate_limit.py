"""Counts attempts in Redis, so that guessing a password does not get faster with more desks."""

import hashlib
from dataclasses import dataclass
from typing import cast

import redis

_PREFIX = "sluice:desk:attempts:"


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
        # Hashed: what people type into a name field may be a password.
        return f"{_PREFIX}{self.name}:{hashlib.sha256(subject.encode()).hexdigest()[:32]}"
