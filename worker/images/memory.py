"""A limit on the memory that images take at once."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Budget(Protocol):
    """Memory that has to be reserved before it is used."""

    def reserve(self, size: int) -> AbstractContextManager[None]:
        """Waits until `size` bytes are free, and holds them for as long as the block lasts."""


class MemoryBudget:
    """A number of bytes that threads share. A thread that wants more than is free waits, first come, first served.

    A limit for each image does not limit what many threads decode at once: a file of a few bytes may be a gigabyte of
    pixels. A request for more than the whole budget is granted once nobody else holds anything.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    def resize(self, size: int) -> None:
        """Changes how much there is; what is taken stays taken."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        """Holds `size` bytes for as long as the block lasts."""
        self.take(size)
        try:
            yield
        finally:
            self.give_back(size)

    def take(self, size: int) -> None:
        """Waits until `size` bytes are free, and takes them."""
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self._queue[0] is ticket and self._fits(size))
                self._taken += size
            finally:
                self._queue.remove(ticket)
                self._changed.notify_all()

    def give_back(self, size: int) -> None:
        """Gives back what `take` took."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()

    def _fits(self, size: int) -> bool:
        return self._taken == 0 or self._taken + size <= self._size
