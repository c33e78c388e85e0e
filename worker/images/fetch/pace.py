"""The slowest pace at which a body may come: a server that drips holds a thread, and its event the partition."""

import time
from collections.abc import Callable
from typing import Final

from worker.images.errors import TransientFetchError

GRACE_SECONDS: Final = 2.0
"""So long a body may take whatever its pace."""


class BodyPace:
    """Of one body, from its first byte on."""

    def __init__(self, place: str, min_bytes_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """`place` names the image in messages."""
        self._place = place
        self._rate = min_bytes_per_second
        self._clock = clock
        self._started = clock()

    def due(self, received: int, waited_seconds: float = 0.0) -> float:
        """The moment, by the clock, at which a body of which so many bytes have come is too slow. `waited_seconds`: how
        long we did not read it, for a reason of our own."""
        return self._started + GRACE_SECONDS + received / self._rate + waited_seconds

    def check(self, received: int, waited_seconds: float = 0.0) -> None:
        """Raises TransientFetchError for a body that is too slow."""
        now = self._clock()
        if now >= self.due(received, waited_seconds):
            raise TransientFetchError(
                f"{self._place} sent {received} bytes in {now - self._started - waited_seconds:.1f} s, which is less "
                f"than images.min_bytes_per_second = {self._rate:g}"
            )
