"""From encoded bytes to pixels."""

import warnings

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile
from PIL.AvifImagePlugin import SUPPORTED as AVIF_SUPPORTED
from PIL.AvifImagePlugin import AvifImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from schemas import FailureReason
from worker.images.avif import check_avif
from worker.images.bombs import CountedReads, check_repeats, check_scans
from worker.images.errors import ImageError
from worker.images.room import Room

Pixels = NDArray[np.uint8]

MAX_SIDE = 65_535
"""What JPEG and GIF can have. A longer one, a pixel wide, would take scaling minutes and gigabytes."""

_BYTES_A_PIXEL = 12
_BYTES_A_PIXEL_ANIMATED = 16
"""Of memory, while an image is decoded, as measured: the most of all formats, and WebP's, read as an animation."""
_ROOM = Room(1024**3)

_STRIP_PIXELS = 1_000_000

# Pillow warns of each broken tag of an image: sixty thousand lines of log, and six seconds, for one of a megabyte.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")


def decode(data: bytes, *, max_pixels: int) -> Pixels:
    """The image as people see it: (H, W, 3) RGB, upright, of the first frame.

    The type follows from the content: JPEG, PNG, WebP, GIF, and AVIF where Pillow has it. Transparency is composited on
    white, the page that most viewers show an image on; to drop alpha, as CLIP's preprocessing does, would judge colours
    that nobody sees. 16 bits are cut to the upper 8. Colour profiles are ignored, as CLIP's preprocessing does.

    Raises ImageError, and nothing else, for bytes that are not such an image, are broken or cut short, or unpack to
    more than `max_pixels`; the last is judged by the header, before memory is taken.
    """
    kind = _sniff(data)
    try:
        check_repeats(data, kind.format)
        hidden = check_avif(data, max_pixels) if kind is AvifImageFile else 0
        image = kind(CountedReads(data))
        _check_size(image.width, image.height, max_pixels)
        if kind is JpegImageFile:
            check_scans(data, image.width * image.height, max_pixels)
        with _ROOM.taken(_memory(image, hidden)):
            pixels = _jpeg_pixels(data, image) if isinstance(image, JpegImageFile) else None
            return _upright(_pixels(image) if pixels is None else pixels, _orientation(image))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise ImageError(FailureReason.IMAGE_TOO_LARGE, f"the image unpacks to too many pixels: {error}") from error
    except Exception as error:  # whatever a decoder says to hostile bytes, it is the image that is at fault
        name = kind.format or "image"
        raise ImageError(
            FailureReason.UNDECODABLE_IMAGE, f"broken {name}, {len(data)} bytes: {error or type(error).__name__}"
        ) from error


def _sniff(data: bytes) -> type[ImageFile.ImageFile]:
    """Pillow's class for what the first bytes promise.

    Its `Image.open` is left alone: it asks every plugin in a registry that any thread may change, and answers a large
    image with a process-wide warning.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile
    if data.startswith((b"GIF87a", b"GIF89a")):
        return GifImageFile
    if AVIF_SUPPORTED and _is_avif(data):
        return AvifImageFile
    if not data:
        raise ImageError(FailureReason.UNSUPPORTED_FORMAT, "the image is empty: 0 bytes")
    raise ImageError(
        FailureReason.UNSUPPORTED_FORMAT,
        f"not a JPEG, PNG, WebP, GIF or AVIF image by its content, which begins with {data[:12]!r}",
    )


def _is_avif(data: bytes) -> bool:
    """Whether the file type box (ISO/IEC 14496-12, 4.3) names an AVIF brand."""
    if data[4:8] != b"ftyp":
        return False
    brands = data[8 : min(int.from_bytes(data[:4], "big"), 256)]
    return any(brands[at : at + 4] in (b"avif", b"avis") for at in range(0, len(brands), 4))


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            FailureReason.IMAGE_TOO_LARGE, f"{width} x {height} pixels, where no side may have more than {MAX_SIDE}"
        )
    if width * height > max_pixels:
        raise ImageError(
            FailureReason.IMAGE_TOO_LARGE,
            f"{width} x {height} = {width * height} pixels, and images.max_pixels is {max_pixels}",
        )


def _memory(image: ImageFile.ImageFile, hidden: int) -> int:
    """Bytes that decoding takes, about; `hidden` are the pixels that are coded in it, where it may say fewer."""
    pixels = max(image.width * image.height, hidden)
    return pixels * (_BYTES_A_PIXEL_ANIMATED if isinstance(image, WebPImageFile) else _BYTES_A_PIXEL)


def _jpeg_pixels(data: bytes, image: JpegImageFile) -> Pixels | None:
    """A flawless JPEG by libjpeg-turbo itself, which gives Pillow's pixels in a third of the time.

    None where that takes Pillow: CMYK (it knows Adobe's inverted kind), and files with faults, some of which viewers
    forgive.
    """
    if image.mode not in ("RGB", "L"):
        return None
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
        if (width, height) != image.size:
            return None
        return simplejpeg.decode_jpeg(data)  # type: ignore[no-any-return]
    except (ValueError, KeyError):
        return None


def _pixels(image: ImageFile.ImageFile) -> Pixels:
    """All of the image as RGB, strip by strip: conversions of the whole would each take its memory once more."""
    image.load()
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    step = max(1, _STRIP_PIXELS // width)
    for top in range(0, height, step):
        pixels[top : top + step] = _rgb(image.crop((0, top, width, min(top + step, height))))
    return pixels


def _rgb(strip: Image.Image) -> Pixels:
    if strip.mode == "I;16":
        return _rgb_of_grey16(strip)
    if strip.has_transparency_data:
        transparent = strip.convert("RGBA")
        strip = Image.new("RGB", strip.size, "white")
        strip.paste(transparent, mask=transparent)
    return np.asarray(strip.convert("RGB"))


def _rgb_of_grey16(strip: Image.Image) -> Pixels:
    """Sixteen bits of grey, which Pillow does not convert; one value may stand for transparent."""
    values = np.asarray(strip)
    grey = (values >> 8).astype(np.uint8)
    transparent = strip.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF tag 274, 1 to 8; 1 where it is missing or the block is broken, for the picture is not."""
    if not image.info.keys() & {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}:
        return 1
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # noqa: BLE001 - the EXIF parser meets hostile bytes with anything
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes an EXIF orientation (Exif 2.32, 4.6.4): 2 to 4 mirror or turn by half, 5 to 8 also swap the axes."""
    if 5 <= orientation <= 8:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)
