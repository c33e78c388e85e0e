"""What a decoder process and its owner say to each other.

Pictures and views lie in memory that both share. Messages are JSON, and each side checks what the other says: the
process may have been taken over by a hostile image.
"""

from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt

from schemas import FailureReason
from worker.settings.image_format import ImageFormat
from worker.view import ViewSpec

MESSAGE_CHARACTERS: Final = 1000
MAX_FRAMES: Final = 10_000
"""Of those that are decoded."""
MAX_NUMBER: Final = 2**31 - 1
"""Of frames, and of pixels on a side: beyond what any file within the limits has."""

REFUSALS: Final = frozenset(
    {
        FailureReason.UNSUPPORTED_FORMAT,
        FailureReason.UNDECODABLE_IMAGE,
        FailureReason.TRUNCATED_IMAGE,
        FailureReason.IMAGE_TOO_LARGE,
    }
)
"""What a decoder can find. The other reasons are not its to give: some are tried again."""


def _refusal(reason: FailureReason) -> FailureReason:
    if reason not in REFUSALS:
        raise ValueError(f"{reason.value} is not for a decoder to find")
    return reason


def _printable(text: str) -> str:
    """It gets into logs and verdicts."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DecoderOptions(_Message):
    """To the process, once."""

    views: dict[str, ViewSpec]
    max_pixels: PositiveInt
    formats: tuple[ImageFormat, ...]
    animation_frames: PositiveInt
    max_animation_pixels: NonNegativeInt
    shared_bytes: PositiveInt
    memory_bytes: PositiveInt
    cpu_seconds: PositiveInt


class DecodeRequest(_Message):
    """To the process: the image is the first `length` bytes of the shared memory."""

    length: NonNegativeInt
    wants_pixels: bool = False
    frame: NonNegativeInt | None = None
    """Of an animation, the only one to decode."""


class MemoryRequest(_Message):
    """From the process: so many bytes are needed. The answer is an empty message, once they are free."""

    kind: Literal["memory"] = "memory"
    size: NonNegativeInt


class ImageRefused(_Message):
    """From the process: the image cannot be judged."""

    kind: Literal["refused"] = "refused"
    reason: Annotated[FailureReason, AfterValidator(_refusal)]
    message: Annotated[str, Field(max_length=MESSAGE_CHARACTERS), AfterValidator(_printable)]


class Decoded(_Message):
    """From the process: the arrays lie one behind the other in the shared memory, the views in the order of the options
    and then the pixels, if they were asked for."""

    kind: Literal["decoded"] = "decoded"
    frame_count: Annotated[int, Field(ge=1, le=MAX_NUMBER)]
    numbers: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, max_length=MAX_FRAMES)]
    """Of the frames that were decoded, rising."""
    height: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    width: Annotated[int, Field(ge=0, le=MAX_NUMBER)] = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


class DecoderAnswer(BaseModel):
    model_config = ConfigDict(frozen=True)

    answer: Annotated[MemoryRequest | ImageRefused | Decoded, Field(discriminator="kind")]
