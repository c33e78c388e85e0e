"""What every fetcher promises."""

from dataclasses import dataclass, field
from typing import Protocol

from schemas import FailureReason, ImageReference
from worker.images.errors import ImageError


@dataclass(frozen=True, slots=True)
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
