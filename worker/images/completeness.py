"""Whether a decoder of Pillow has filled the whole picture.

A stream that ends in good order, but too early, leaves the rest of the picture as it was. Pillow reports nothing, and
its zeros are taken for pixels. So the picture is filled beforehand. Decoders write pixels in order; where the last one
holds the fill value still, the picture is decoded once more over another value: if it differs then, it was never
written.
"""

from collections.abc import Callable

from PIL import Image, ImageFile

from worker.images.errors import ImageError, truncated

_FILLS = (0x5A, 0xA5)
_FILLS_OF_BITS = (255, 0)


def load_whole(opened: Callable[[], ImageFile.ImageFile], *, is_interlaced: bool, what: str) -> Image.Image:
    """The pixels of the image that `opened` opens at each call. Raises ImageError where a part is missing, else
    whatever the decoder raises.
    """
    image, is_last_kept = _loaded(opened(), 0, is_interlaced, what)
    if is_last_kept and _loaded(opened(), 1, is_interlaced, what)[1]:
        raise _missing(what)
    return image


def _loaded(image: ImageFile.ImageFile, number: int, is_interlaced: bool, what: str) -> tuple[Image.Image, bool]:
    """The image, and whether its last pixel is that which was there before."""
    fill = (_FILLS_OF_BITS if image.mode == "1" else _FILLS)[number]
    bands = len(image.getbands())
    image.im = Image.new(image.mode, image.size, fill if bands == 1 else (fill,) * bands).im
    last = _last(image.width, image.height, is_interlaced)
    before = image.im.getpixel(last)
    try:
        image.load()
    except OSError as error:
        if "truncated" in str(error):
            raise _missing(what) from error
        raise
    return image, image.im.getpixel(last) == before


def _last(width: int, height: int, is_interlaced: bool) -> tuple[int, int]:
    """The pixel that is decoded last: the last passes of PNG and GIF are the odd rows, or columns of a single row."""
    if not is_interlaced:
        return width - 1, height - 1
    if height > 1:
        return width - 1, height - 1 - height % 2
    return max(width - 1 - width % 2, 0), 0


def _missing(what: str) -> ImageError:
    return truncated(f"{what} with a part of its picture missing")
