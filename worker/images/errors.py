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


class StoreRefusedError(TransientFetchError):
    """The store does not accept this worker's credentials, whatever is asked for."""


class DecoderUnavailableError(Exception):
    """There is no process to decode the image in. Neither the image nor its store is at fault."""


def bomb(what: str) -> ImageError:
    """The refusal of a small file that would take far more time or memory than honest ones."""
    return ImageError(FailureReason.IMAGE_TOO_LARGE, f"{what}: a decompression bomb")


def truncated(what: str) -> ImageError:
    """The refusal of a file that lacks a part of its picture."""
    return ImageError(FailureReason.TRUNCATED_IMAGE, f"{what}; send the whole file")
