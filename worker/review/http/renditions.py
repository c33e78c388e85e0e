"""What the browser gets to see of an image: never the bytes that came from outside, always pixels encoded anew."""

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from schemas import FailureReason, ImageReference
from worker.images.decode import decode
from worker.images.errors import ImageError
from worker.images.fetch import Fetcher

THUMBNAIL_SIDE: Final = 400
SCREEN_SIDE: Final = 1600
NATIVE_SIDE: Final = 8192
"""Pixels; browsers give up on much larger pictures."""
BLUR_SIDE: Final = 24
"""A blurred rendition is made from so few pixels that nothing in it can be recognised by undoing the blur."""


class Rendition(StrEnum):
    THUMBNAIL = "thumbnail"
    SCREEN = "screen"
    NATIVE = "native"
    BLURRED = "blurred"


@dataclass(frozen=True, slots=True)
class Rendered:
    """An encoded rendition. `width` and `height` are those of the original."""

    data: bytes = field(repr=False)
    media_type: str
    etag: str
    width: int
    height: int


class Renderer:
    """Fetches, decodes and encodes anew; remembers the last renditions. Safe to use from several threads.

    At most `threads` images are worked on at once, so that memory stays bounded whatever is asked for.
    """

    def __init__(self, fetcher: Fetcher, *, max_pixels: int, cache_bytes: int, threads: int) -> None:
        self._fetcher = fetcher
        self._max_pixels = max_pixels
        self._cache = _Cache(cache_bytes)
        self._room = threading.BoundedSemaphore(threads)

    def render(self, reference: ImageReference, content_hash: str | None, rendition: Rendition) -> Rendered:
        """Raises ImageError and TransientFetchError; an image that was exchanged since it was judged is refused."""
        name = content_hash or hashlib.sha256(reference.model_dump_json().encode()).hexdigest()
        key = (name, rendition.value)
        if (known := self._cache.get(key)) is not None:
            return known
        with self._room:
            if (known := self._cache.get(key)) is not None:  # made while we waited
                return known
            data = self._fetcher.fetch(reference).data
            if content_hash is not None and f"sha256:{hashlib.sha256(data).hexdigest()}" != content_hash:
                raise ImageError(
                    FailureReason.HASH_MISMATCH,
                    "the image was exchanged after it was judged; what is there now is not it",
                )
            rendered = _encode(decode(data, max_pixels=self._max_pixels), rendition)
        self._cache.put(key, rendered)
        return rendered


def _encode(pixels: NDArray[np.uint8], rendition: Rendition) -> Rendered:
    height, width = pixels.shape[:2]
    image = Image.fromarray(pixels)
    buffer = io.BytesIO()
    if rendition is Rendition.BLURRED:
        image.thumbnail((BLUR_SIDE, BLUR_SIDE))
        factor = THUMBNAIL_SIDE / max(width, height)
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        image = image.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(6))
    else:
        side = {Rendition.THUMBNAIL: THUMBNAIL_SIDE, Rendition.SCREEN: SCREEN_SIDE, Rendition.NATIVE: NATIVE_SIDE}
        image.thumbnail((side[rendition],) * 2, Image.Resampling.LANCZOS)
    if rendition is Rendition.NATIVE:
        # People judge artefacts here; the encoder must not add its own.
        image.save(buffer, "JPEG", quality=97, subsampling=0)
    else:
        image.save(buffer, "JPEG", quality=88, optimize=True)
    data = buffer.getvalue()
    return Rendered(data, "image/jpeg", f'"{hashlib.sha256(data).hexdigest()[:32]}"', width, height)


class _Cache:
    """The renditions used last, at most so many bytes of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max = max_bytes
        self._size = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[str, str], Rendered] = OrderedDict()

    def get(self, key: tuple[str, str]) -> Rendered | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
            return entry

    def put(self, key: tuple[str, str], entry: Rendered) -> None:
        with self._lock:
            if key in self._entries or len(entry.data) > self._max:
                return
            self._entries[key] = entry
            self._size += len(entry.data)
            while self._size > self._max:
                _, oldest = self._entries.popitem(last=False)
                self._size -= len(oldest.data)
