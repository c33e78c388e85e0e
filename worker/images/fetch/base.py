"""What every fetcher promises."""

import io
import time
import weakref
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, Self

from schemas import FailureReason, ImageReference
from worker.images.errors import ImageError
from worker.images.memory import MemoryBudget

SMALL_BYTES: Final = 8 * 1024 * 1024
"""Bodies of up to so many bytes wait for no memory: the threads that fetch are few."""


@dataclass(frozen=True, slots=True, weakref_slot=True)
class FetchedImage:
    """The encoded image, and what the store calls this state of it."""

    data: bytes = field(repr=False)
    etag: str | None = None
    version_id: str | None = None


class Fetcher(Protocol):
    """From a reference to bytes. Safe to call from many threads."""

    def fetch(self, reference: ImageReference) -> FetchedImage:
        """The bytes, at most `images.max_bytes` of them, within about `images.fetch_timeout_seconds`.

        Raises ImageError where trying again would not help, TransientFetchError where it may. Their messages name the
        place without what is secret in it: credentials and queries of URLs are left out.
        """

    def close(self) -> None:
        """Ends its connections. It must not be used afterwards."""


def too_large(place: str, size: int, max_bytes: int, *, at_least: bool = False) -> ImageError:
    """The refusal of an image whose encoded bytes are too many."""
    return ImageError(
        FailureReason.IMAGE_TOO_LARGE,
        f"{place} has {'more than ' if at_least else ''}{size} bytes, and images.max_bytes is {max_bytes}",
    )


def check_etag(promised: str | None, found: str | None, place: str) -> None:
    """Raises ImageError where the event promised another state of the image: not every store knows If-Match."""
    if promised is not None and bare_etag(promised) != bare_etag(found):
        raise ImageError(
            FailureReason.HASH_MISMATCH,
            f"{place} has etag {bare_etag(found)}, and the event names {bare_etag(promised)}",
        )


def bare_etag(etag: str | None) -> str | None:
    """As notifications write it: without the quotes of HTTP, and without the mark of a weak one."""
    return etag and etag.removeprefix("W/").strip('"')


class ImageBody:
    """An image while it arrives, within `max_bytes`, and within the memory that all fetches share.

    A large body waits for memory before it is read, or, where its size was not announced, once it has SMALL_BYTES. The
    memory is given back when the FetchedImage is garbage. Used as a context manager; raises ImageError for a body that
    is too large.
    """

    def __init__(self, memory: MemoryBudget, max_bytes: int, place: str, announced: int | None) -> None:
        if announced is not None and announced > max_bytes:
            raise too_large(place, announced, max_bytes)
        self._memory = memory
        self._max_bytes = max_bytes
        self._place = place
        self._expected = max_bytes if announced is None else announced
        # One buffer: chunks of a large body would leave holes in the heap of each thread, which stay.
        self._content = io.BytesIO()
        self._size = 0
        self._held = 0
        self.waited_seconds = 0.0
        """For memory, which is no fault of the server."""
        if announced is not None and announced > SMALL_BYTES:
            self._hold()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._held:
            self._memory.give_back(self._held)

    def __len__(self) -> int:
        return self._size

    def add(self, chunk: bytes) -> None:
        self._content.write(chunk)
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise too_large(self._place, self._max_bytes, self._max_bytes, at_least=True)
        if self._size > SMALL_BYTES and not self._held:
            self._hold()

    def image(self, etag: str | None = None, version_id: str | None = None) -> FetchedImage:
        image = FetchedImage(self._content.getvalue(), etag, version_id)
        self._content = io.BytesIO()
        if self._held:
            self._memory.give_back(self._held - self._size)
            weakref.finalize(image, self._memory.give_back, self._size).atexit = False
            self._held = 0
        return image

    def _hold(self) -> None:
        """Twice the body: where the buffer cannot grow in place, it is there twice for a moment."""
        started = time.monotonic()
        self._memory.take(2 * self._expected)
        self._held = 2 * self._expected
        self.waited_seconds += time.monotonic() - started
