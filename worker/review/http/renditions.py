"""Renditions of images for the browser: always decoded and encoded again, never the original bytes."""

import hashlib
import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from schemas import FailureReason, ImageReference
from worker.images.decoded_views import ViewDecoder
from worker.images.errors import DecoderUnavailableError, ImageError, TransientFetchError
from worker.images.fetch import Fetcher
from worker.review.http.frame_sheets import make_sheet
from worker.review.http.lru_cache import LruCache
from worker.review.waiting import held

THUMBNAIL_SIDE: Final = 400
SCREEN_SIDE: Final = 1600
WAIT_SECONDS: Final = 30.0
"""Longest wait for other images to be decoded."""
NATIVE_SIDE: Final = 8192
"""Pixels; browsers give up on much larger pictures."""
BLUR_SIDE: Final = 24
"""A blurred rendition is made from so few pixels that nothing in it can be recognised by undoing the blur."""


class Rendition(StrEnum):
    THUMBNAIL = "thumbnail"
    SCREEN = "screen"
    NATIVE = "native"
    BLURRED = "blurred"
    FRAMES = "frames"
    """Of an animation: a sheet of frames for the page to play (frame_sheets.py)."""
    HEAT_MAP = "heat-map"
    """Made elsewhere (heat_maps.py), shown by the same links."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """An encoded rendition. `width` and `height` are those of the original; `headers` say more of it."""

    data: bytes = field(repr=False)
    media_type: str
    etag: str
    width: int
    height: int
    headers: Mapping[str, str] = field(default_factory=dict)


class Renderer:
    """Fetches, decodes and re-encodes images, and caches recent renditions. Thread-safe.

    At most `threads` images are worked on at once, so that memory stays bounded whatever is asked for.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        *,
        decoder: ViewDecoder,
        frame_decoder: ViewDecoder,
        cache_bytes: int,
        threads: int,
    ) -> None:
        """`decoder` makes no views; its pixels are used. `frame_decoder` is that of `frame_sheets`."""
        self._fetcher = fetcher
        self._decoder = decoder
        self._frame_decoder = frame_decoder
        self._cache: LruCache[Rendered] = LruCache(cache_bytes)
        self._room = threading.BoundedSemaphore(threads)

    def render(
        self, reference: ImageReference, content_hash: str | None, rendition: Rendition, frame: int = 0
    ) -> Rendered:
        """Of an animation the frame of this number. Raises ImageError, also for an image that was exchanged since it
        was judged, TransientFetchError and WaitedTooLong."""
        key = (self.name(reference, content_hash, frame), rendition.value)
        if (known := self._cache.get(key)) is not None:
            return known
        with held(self._room, WAIT_SECONDS, "decoding images"):
            if (known := self._cache.get(key)) is not None:  # made while we waited
                return known
            if rendition is Rendition.FRAMES:
                rendered = self._sheet(reference, content_hash, frame)
            else:
                rendered = _encode(self._decoded(reference, content_hash, frame), rendition)
        self._cache.put(key, rendered, len(rendered.data))
        return rendered

    def pixels(self, reference: ImageReference, content_hash: str | None, frame: int = 0) -> NDArray[np.uint8]:
        """The image itself, [height, width, 3]. Raises as `render`."""
        with held(self._room, WAIT_SECONDS, "decoding images"):
            return self._decoded(reference, content_hash, frame)

    @staticmethod
    def name(reference: ImageReference, content_hash: str | None, frame: int = 0) -> str:
        """What to remember the image by."""
        image = content_hash or hashlib.sha256(reference.model_dump_json().encode()).hexdigest()
        return f"{image}#{frame}" if frame else image

    def _sheet(self, reference: ImageReference, content_hash: str | None, frame: int) -> Rendered:
        data = self._fetched(reference, content_hash)
        with _decoder_faults():
            sheet = make_sheet(self._frame_decoder, data, frame)
        picture = encoded(Image.fromarray(sheet.pixels), sheet.width, sheet.height)
        return replace(picture, headers=sheet.headers())

    def _decoded(self, reference: ImageReference, content_hash: str | None, frame: int) -> NDArray[np.uint8]:
        data = self._fetched(reference, content_hash)
        with _decoder_faults():
            pixels = self._decoder.decode(data, wants_pixels=True, frame=frame).pixels
        assert pixels is not None  # noqa: S101  # they were asked for
        return pixels

    def _fetched(self, reference: ImageReference, content_hash: str | None) -> bytes:
        data = self._fetcher.fetch(reference).data
        if content_hash is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" != content_hash:
            raise ImageError(
                FailureReason.HASH_MISMATCH,
                "the image was exchanged after it was judged; what is there now is not it",
            )
        return data


@contextmanager
def _decoder_faults() -> Iterator[None]:
    try:
        yield
    except DecoderUnavailableError as error:
        raise TransientFetchError(str(error)) from error


def _encode(pixels: NDArray[np.uint8], rendition: Rendition) -> Rendered:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    if rendition is Rendition.BLURRED:
        image.thumbnail((BLUR_SIDE, BLUR_SIDE))
        factor = THUMBNAIL_SIDE / max(width, height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(6))
    else:
        side = {Rendition.THUMBNAIL: THUMBNAIL_SIDE, Rendition.SCREEN: SCREEN_SIDE, Rendition.NATIVE: NATIVE_SIDE}
        image.thumbnail((side[rendition],) * 2, Image.Resampling.LANCZOS)
    return encoded(image, width, height, native=rendition is Rendition.NATIVE)


def encoded(image: Image.Image, width: int, height: int, *, native: bool = False) -> Rendered:
    """A picture of an original of this size, as JPEG."""
    buffer = io.BytesIO()
    if native:
        # People judge artefacts here; the encoder must not add its own.
        image.save(buffer, "JPEG", quality=97, subsampling=0)
    else:
        image.save(buffer, "JPEG", quality=88, optimize=True)
    data = buffer.getvalue()
    return Rendered(data, "image/jpeg", f'"{hashlib.sha256(data).hexdigest()[:32]}"', width, height)
