"""How getting pixels can fail."""

from schemas import FailureReason


class ImageError(Exception):
    """The image cannot be judged, and trying again would not help. `str()` says what was wrong and what to do."""

    def __init__(self, reason: FailureReason, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return self.message


class TransientFetchError(Exception):
    """The image could not be fetched this time; trying again may help."""
