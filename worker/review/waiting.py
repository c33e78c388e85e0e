"""Waiting for a lock with a time limit."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class WaitedTooLong(Exception):
    """A lock was not free in time; the message says what it is for."""


class Lockable(Protocol):
    """A lock or a semaphore of `threading`."""

    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...

    def release(self) -> None: ...


@contextmanager
def held(lock: Lockable, seconds: float, what: str) -> Iterator[None]:
    """Holds the lock. Raises WaitedTooLong when it is not free within `seconds`."""
    if not lock.acquire(timeout=max(0.0, seconds)):
        raise WaitedTooLong(f"{what} is still busy for others after {seconds:.0f} s; try again in a moment")
    try:
        yield
    finally:
        lock.release()
