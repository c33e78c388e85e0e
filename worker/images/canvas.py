"""Frames put on a canvas, as GIF and APNG do."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from PIL import Image


class Disposal(Enum):
    """What becomes of a frame's place before the next frame is drawn."""

    KEEP = "keep"
    CLEAR = "clear"
    RESTORE = "restore"


class Blend(Enum):
    """How a frame is drawn."""

    REPLACE = "replace"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class FramePlace:
    """Where on the canvas a frame lies."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame of its own size, of any mode that Pillow converts to RGBA."""

    image: Image.Image
    place: FramePlace
    disposal: Disposal = Disposal.KEEP
    blend: Blend = Blend.OVER
    seconds: float = 0.0


def first_shown(frame: Frame, width: int, height: int) -> Image.Image:
    """What is seen at the first frame, of any mode."""
    if frame.place == FramePlace(0, 0, width, height):
        return frame.image
    return next(compose([frame], width, height))


def compose(frames: Iterable[Frame], width: int, height: int) -> Iterator[Image.Image]:
    """What is seen at each frame, RGBA, on a canvas that begins transparent. The next step changes the same image."""
    canvas = Image.new("RGBA", (width, height))
    for frame in frames:
        corner = (frame.place.left, frame.place.top)
        before = canvas.copy() if frame.disposal is Disposal.RESTORE else None
        image = frame.image.convert("RGBA")
        if frame.blend is Blend.REPLACE:
            canvas.paste(image, corner)
        else:
            canvas.alpha_composite(image, corner)
        yield canvas
        if before is not None:
            canvas = before
        elif frame.disposal is Disposal.CLEAR:
            canvas.paste((0, 0, 0, 0), (*corner, corner[0] + frame.place.width, corner[1] + frame.place.height))


def pick(images: Iterable[Image.Image], numbers: Sequence[int]) -> Iterator[Image.Image]:
    """Those of these numbers, which rise."""
    wanted = iter(numbers)
    number = next(wanted, None)
    for index, image in enumerate(images):
        if index == number:
            yield image
            number = next(wanted, None)
        if number is None:
            return
