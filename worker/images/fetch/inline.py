"""Images that came with the event."""

from schemas import InlineReference
from worker.images.fetch.base import FetchedImage, too_large


class InlineFetcher:
    """Checks the size, as for every other image."""

    def __init__(self, *, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def fetch(self, reference: InlineReference) -> FetchedImage:
        if len(reference.bytes) > self._max_bytes:
            raise too_large("the inline image", len(reference.bytes), self._max_bytes)
        return FetchedImage(reference.bytes)

    def close(self) -> None:
        """Holds nothing."""
