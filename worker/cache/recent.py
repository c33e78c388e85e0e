"""What was read from Redis within the last minute, decoded: the same images often come again at once."""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

SECONDS: Final = 30.0
"""A value is kept for this time to twice as long."""
MOST: Final = 4096
"""As many values are kept to twice as many; of scores, 5 to 10 MB."""


class RecentValues(Generic[T]):
    """Two generations of values: the older one is dropped when the younger one is full or SECONDS old.

    For values that never change under their key, so that a value which Redis has lost meanwhile is still right. Safe
    for several threads: the worst that a race does is to forget a value.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}
        self._turned_at = clock()

    def turn(self) -> None:
        """Drops what is too old. Call it before each series of `get`."""
        now = self._clock()
        if len(self._young) >= MOST or now - self._turned_at >= SECONDS:
            self._old = {} if now - self._turned_at >= 2 * SECONDS else self._young
            self._young = {}
            self._turned_at = now

    def get(self, key: str) -> T | None:
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def put(self, key: str, value: T) -> None:
        self._young[key] = value
