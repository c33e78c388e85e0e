"""From encoded bytes to pixels."""

import warnings
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image

from schemas import FailureReason
from worker.images.canvas import compose, first_shown, pick
from worker.images.colour import Colour
from worker.images.errors import ImageError, truncated
from worker.images.formats import HEAD_BYTES, foreign_format, sniff
from worker.images.gif import read_gif
from worker.images.jpeg import open_jpeg
from worker.images.memory import Budget, MemoryBudget
from worker.images.picture import BYTES_A_PIXEL, Picture, Pixels
from worker.images.png import read_png
from worker.images.webp import read_webp
from worker.settings import ImageSettings
from worker.settings.image_format import DEFAULT_FORMATS, ImageFormat

MAX_SIDE: Final = 65_535
"""What JPEG and GIF can have. A longer one, a pixel wide, would take scaling minutes and gigabytes."""

_BYTES_A_PIXEL_WEBP: Final = 16
"""Pillow reads every WebP as an animation."""
DECODE_MEMORY: Final = MemoryBudget(ImageSettings().decode_memory_bytes)
"""What all threads of this process decode in, and the decoder processes that it has."""
_STRIP_PIXELS: Final = 1_000_000
_WIDE_GREY: Final = ("I;16", "I;16B", "I;16L")
_UNREADABLE: Final = ("I", "F")

# Pillow warns of each broken tag of an image: sixty thousand lines of log, and six seconds, for one of a megabyte.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What may be decoded."""

    max_pixels: int
    formats: Collection[ImageFormat] = DEFAULT_FORMATS
    animation_frames: int = 8
    max_animation_pixels: int = 500_000_000

    @classmethod
    def of(cls, settings: ImageSettings) -> "DecodeLimits":
        """By the settings, which also say how much memory this process decodes in."""
        DECODE_MEMORY.resize(settings.decode_memory_bytes)
        return cls(settings.max_pixels, settings.formats, settings.animation_frames, settings.max_animation_pixels)


@dataclass(frozen=True, slots=True)
class ShownFrames:
    """What is seen of an image: itself, or frames of an animation."""

    count: int
    """Of all frames; 1 for a still image."""
    seconds: float
    """How long all frames are shown, once; 0 for a still image, and where that is not known."""
    numbers: tuple[int, ...]
    """Of the frames that are decoded, from 0."""
    pixels: Iterator[Pixels]
    """One for each number, (H, W, 3). Raises ImageError."""


def decode(
    data: bytes, *, max_pixels: int, formats: Collection[ImageFormat] = DEFAULT_FORMATS, frame: int = 0
) -> Pixels:
    """The image, or the frame of this number of an animation, as `decoded` gives it, for those who hold few images at a
    time."""
    limits = DecodeLimits(max_pixels, formats, animation_frames=2 if frame else 1)
    with decoded(data, limits, frame=frame) as shown:
        return next(shown.pixels)


@contextmanager
def decoded(
    data: bytes,
    limits: DecodeLimits,
    *,
    least_side: int | None = None,
    frame: int | None = None,
    budget: Budget = DECODE_MEMORY,
) -> Iterator[ShownFrames]:
    """The image as browsers show it: (H, W, 3) RGB in sRGB, upright. The block holds the memory of one frame,
    of `budget`.

    The type follows from the content. Transparency is composited on white, the page that most viewers show an image on;
    to drop alpha, as CLIP's preprocessing does, would judge colours that nobody sees. 16 bits are cut to the upper 8.
    With `least_side`, a huge JPEG may be decoded at a smaller scale that leaves its shorter side so long. The frames of
    an animation are spread evenly, or there is one: that of the number `frame`.

    Raises ImageError, and nothing else, for bytes that are not an image of one of the formats, are damaged or cut
    short, or unpack to too many pixels; the last is judged by the header, before memory is taken.
    """
    image_format = _allowed(data, limits.formats)
    with _faults(image_format, data):
        picture = _open(image_format, data, limits, least_side)
        _check_size(picture.width, picture.height, limits.max_pixels)
    numbers = _spread(picture.frame_count, limits.animation_frames) if frame is None else (frame,)
    if numbers[-1] >= picture.frame_count:
        raise ImageError(
            FailureReason.UNDECODABLE_IMAGE, f"it has {picture.frame_count} frames, and none of the number {frame}"
        )
    if numbers != (0,):
        _check_animation(picture, limits.max_animation_pixels)
    with budget.reserve(picture.memory):
        pixels = _frames(picture, numbers, image_format, data)
        yield ShownFrames(picture.frame_count, picture.seconds, numbers, pixels)


def _frames(picture: Picture, numbers: Sequence[int], image_format: ImageFormat, data: bytes) -> Iterator[Pixels]:
    with _faults(image_format, data):
        if picture.frames is None or numbers == (0,):
            yield _upright(_rgb(picture.load(), picture.colour), picture.orientation)
            return
        found = 0
        for image in picture.frames(numbers):
            found += 1
            yield _upright(_rgb(image, picture.colour), picture.orientation)
        if found != len(numbers):
            raise truncated(f"an animated {image_format.label} with frames missing")


def _spread(count: int, wanted: int) -> tuple[int, ...]:
    """So many numbers of 0 to `count` - 1, spread evenly from the first to the last."""
    if wanted == 1 or count == 1:
        return (0,)
    return tuple(sorted({round(index * (count - 1) / (wanted - 1)) for index in range(wanted)}))


def _check_animation(picture: Picture, max_pixels: int) -> None:
    total = picture.frame_count * picture.width * picture.height
    if total > max_pixels:
        raise ImageError(
            FailureReason.IMAGE_TOO_LARGE,
            f"an animation of {picture.frame_count} frames of {picture.width} x {picture.height} = {total} pixels, and "
            f"images.max_animation_pixels is {max_pixels}",
        )


@contextmanager
def _faults(image_format: ImageFormat, data: bytes) -> Iterator[None]:
    """Whatever a decoder says to hostile bytes, it is the image that is at fault."""
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(FailureReason.IMAGE_TOO_LARGE, f"the image unpacks to too many pixels: {error}") from error
    except Exception as error:
        raise _damaged(image_format, data, error) from error


def _allowed(data: bytes, formats: Collection[ImageFormat]) -> ImageFormat:
    head = data[:HEAD_BYTES]
    image_format = sniff(head)
    if image_format in formats and image_format is not None:
        return image_format
    if image_format is not None:
        message = f"{image_format.label} images are not read; add {image_format.value} to images.formats to allow them"
    elif data:
        found = foreign_format(head)
        what = (
            f"{found} images are not read" if found else f"not an image by its content, which begins with {data[:12]!r}"
        )
        message = f"{what}; expected {', '.join(each.label for each in ImageFormat if each in formats)}"
    else:
        message = "the image is empty: 0 bytes"
    raise ImageError(FailureReason.UNSUPPORTED_FORMAT, message)


def _open(image_format: ImageFormat, data: bytes, limits: DecodeLimits, least_side: int | None) -> Picture:
    match image_format:
        case ImageFormat.JPEG:
            return open_jpeg(data, limits.max_pixels, least_side)
        case ImageFormat.PNG:
            return _open_png(data)
        case ImageFormat.WEBP:
            return _open_webp(data)
        case ImageFormat.GIF:
            return _open_gif(data, None if limits.animation_frames > 1 else 1)
        case _:
            return _open_rarer(image_format, data, limits)


def _open_rarer(image_format: ImageFormat, data: bytes, limits: DecodeLimits) -> Picture:
    """Formats whose libraries are loaded at the first image of theirs."""
    match image_format:
        case ImageFormat.AVIF:
            from worker.images.avif import open_avif

            sequence_pixels = limits.max_animation_pixels if limits.animation_frames > 1 else 0
            return open_avif(data, limits.max_pixels, sequence_pixels)
        case ImageFormat.HEIC:
            from worker.images.heic import open_heic

            return open_heic(data)
        case ImageFormat.JXL:
            from worker.images.jxl import open_jxl

            return open_jxl(data)
        case _:
            from worker.images import pillow_formats

            openers = {
                ImageFormat.BMP: pillow_formats.open_bmp,
                ImageFormat.TIFF: pillow_formats.open_tiff,
                ImageFormat.JPEG2000: pillow_formats.open_jpeg2000,
            }
            return openers[image_format](data)


def _open_png(data: bytes) -> Picture:
    png = read_png(data)
    memory = png.width * png.height * BYTES_A_PIXEL + sum(map(len, png.data))
    if not png.is_animated:
        return Picture(png.width, png.height, png.still, png.orientation, png.colour, memory)

    def load() -> Image.Image:
        return first_shown(next(png.frames()), png.width, png.height)

    def frames(numbers: Sequence[int]) -> Iterator[Image.Image]:
        return pick(compose(png.frames(), png.width, png.height), numbers)

    count = max(1, len(png.animation))
    seconds = sum(frame.seconds for frame in png.animation)
    return Picture(png.width, png.height, load, png.orientation, png.colour, memory, count, seconds, frames)


def _open_gif(data: bytes, most_frames: int | None) -> Picture:
    gif = read_gif(data, most_frames)
    memory = gif.width * gif.height * BYTES_A_PIXEL

    def load() -> Image.Image:
        return first_shown(gif.frames[0].open(), gif.width, gif.height)

    def frames(numbers: Sequence[int]) -> Iterator[Image.Image]:
        return pick(compose((frame.open() for frame in gif.frames), gif.width, gif.height), numbers)

    return Picture(
        gif.width,
        gif.height,
        load,
        memory=memory,
        frame_count=len(gif.frames),
        seconds=sum(frame.seconds for frame in gif.frames),
        frames=frames,
    )


def _open_webp(data: bytes) -> Picture:
    webp = read_webp(data)
    image = webp.open()

    def frames(numbers: Sequence[int]) -> Iterator[Image.Image]:
        for number in numbers:
            image.seek(number)
            image.load()
            yield image

    memory = image.width * image.height * _BYTES_A_PIXEL_WEBP
    return Picture(
        image.width, image.height, lambda: image, 1, webp.colour, memory, image.n_frames, webp.seconds, frames
    )


def _damaged(image_format: ImageFormat, data: bytes, error: Exception) -> ImageError:
    said = str(error).strip() or type(error).__name__
    is_cut = "truncated" in said.lower() or "end of file" in said.lower()
    if image_format in (ImageFormat.AVIF, ImageFormat.HEIC):
        from worker.images.avif import ends_early

        is_cut = is_cut or ends_early(data)
    reason = FailureReason.TRUNCATED_IMAGE if is_cut else FailureReason.UNDECODABLE_IMAGE
    return ImageError(reason, f"broken {image_format.label}, {len(data)} bytes: {said}")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise ValueError(f"it has {width} x {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            FailureReason.IMAGE_TOO_LARGE, f"{width} x {height} pixels, where no side may have more than {MAX_SIDE}"
        )
    if width * height > max_pixels:
        raise ImageError(
            FailureReason.IMAGE_TOO_LARGE,
            f"{width} x {height} = {width * height} pixels, and images.max_pixels is {max_pixels}",
        )


def _rgb(loaded: Image.Image | Pixels, colour: Colour | None) -> Pixels:
    """All of the picture as RGB, strip by strip: conversions of the whole would each take its memory once more."""
    if isinstance(loaded, np.ndarray):
        if colour is None:
            return loaded
        loaded = Image.fromarray(loaded)
    loaded.load()
    if loaded.mode in _UNREADABLE:
        raise ValueError("its samples have 32 bits, of which nothing says what is black and what is white")
    width, height = loaded.size
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        pixels[top : top + step] = _rgb_strip(loaded.crop((0, top, width, min(top + step, height))), colour)
    return pixels


def _rgb_strip(strip: Image.Image, colour: Colour | None) -> Pixels:
    if strip.mode in _WIDE_GREY:
        strip = _grey(strip)
    if strip.has_transparency_data:
        transparent = strip.convert("RGBA")
        if colour is not None:
            transparent = colour.to_srgb(transparent)
        strip = Image.new("RGB", strip.size, "white")
        strip.paste(transparent, mask=transparent)
        return np.asarray(strip)
    if colour is not None:
        strip = colour.to_srgb(strip if strip.mode in ("L", "RGB", "CMYK") else strip.convert("RGB"))
    return np.asarray(strip.convert("RGB"))


def _grey(strip: Image.Image) -> Image.Image:
    """Sixteen bits of grey, which Pillow does not convert; one value may stand for transparent."""
    values = np.asarray(strip)
    grey = (values >> 8).astype(np.uint8)
    transparent = strip.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey)
    return Image.fromarray(np.stack([grey, np.where(values == transparent, 0, 255).astype(np.uint8)], axis=-1))


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation (Exif 2.32, 4.6.4): 2 to 4 mirror or turn by half, 5 to 8 also swap the axes."""
    if 5 <= orientation <= 8:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
