"""Commands of many items, put together: one command a key instead of one an item."""

from collections import Counter, defaultdict
from typing import Any


class Writes:
    """Collects what changes in sets, sorted sets and counts. Of one member of one key the last word counts."""

    def __init__(self) -> None:
        self._scores: defaultdict[str, dict[str, float | None]] = defaultdict(dict)
        self._members: defaultdict[str, dict[str, bool]] = defaultdict(dict)
        self._fields: defaultdict[str, dict[str, str | None]] = defaultdict(dict)
        self._counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._lives: dict[str, int] = {}

    def score(self, key: str, member: str, score: float | None) -> None:
        """Puts a member into a sorted set; None: takes it out."""
        self._scores[key][member] = score

    def member(self, key: str, member: str, there: bool) -> None:
        """Puts a member into a set, or takes it out."""
        self._members[key][member] = there

    def field(self, key: str, name: str, value: str | None) -> None:
        """Sets a field of a hash; None: removes it."""
        self._fields[key][name] = value

    def count(self, key: str, field: str, by: int) -> None:
        """Adds to a field of a hash."""
        self._counts[key][field] += by

    def sum(self, key: str, field: str, by: float) -> None:
        self._sums[key][field] += by  # type: ignore[assignment]  # a Counter takes fractions

    def expire(self, key: str, seconds: int) -> None:
        self._lives[key] = seconds

    def queue(self, pipeline: Any) -> None:
        """Queues the commands."""
        for key, scores in self._scores.items():
            added = {member: score for member, score in scores.items() if score is not None}
            if added:
                pipeline.zadd(key, added)
            if len(added) < len(scores):
                pipeline.zrem(key, *(member for member in scores if member not in added))
        for key, members in self._members.items():
            for there, command in ((True, pipeline.sadd), (False, pipeline.srem)):
                if chosen := [member for member, is_there in members.items() if is_there is there]:
                    command(key, *chosen)
        for key, fields in self._fields.items():
            if kept := {name: value for name, value in fields.items() if value is not None}:
                pipeline.hset(key, mapping=kept)
            if gone := [name for name, value in fields.items() if value is None]:
                pipeline.hdel(key, *gone)
        for key, counts in self._counts.items():
            for field, by in counts.items():
                if by:
                    pipeline.hincrby(key, field, by)
        for key, sums in self._sums.items():
            for field, amount in sums.items():
                pipeline.hincrbyfloat(key, field, amount)
        for key, seconds in self._lives.items():
            pipeline.expire(key, seconds)
