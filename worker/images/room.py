"""How much memory pixels may take at once."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Room:
    """Holds so many bytes; who wants more than is free waits, first come, first served.

    A limit for each image does not limit what many threads unpack at once: a file of a few bytes may be a gigabyte of
    pixels. Who alone wants more than there is at all gets it when everybody else has left.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Room for `size` bytes, for as long as the block lasts."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._fits(size))
                self._taken += size
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._taken -= size
                self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._taken == 0 or self._taken + size <= self._size
