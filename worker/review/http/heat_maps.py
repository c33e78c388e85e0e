"""Where the fine stream sees damage in an image: made when somebody asks, as `sluice explain` does, and remembered."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import structlog
from PIL import Image

from schemas import ImageReference
from worker.images.views import make_views
from worker.review.http.lru_cache import LruCache
from worker.review.http.renditions import SCREEN_SIDE, Rendered, Renderer, encoded
from worker.scoring.engine import Engine
from worker.scoring.explain import explain
from worker.scoring.heat import FAINTEST_SCALE, heat_map
from worker.scoring.model import Model

log = structlog.get_logger(__name__)

AT_ONCE: Final = 4
"""Of those who ask, one is served and so many wait less one: each takes seconds of all processors."""
SMALLEST_SIDE: Final = 640
"""Pixels; a small image is drawn larger, for its colours to be soft."""


class NoEngine(Exception):
    """This desk has no engine to look with; the message says why."""


class Busy(Exception):
    """Too many ask at once."""


@dataclass(frozen=True, slots=True)
class ExplainEngine:
    """What sees: a model and the engine that runs it."""

    model: Model
    engine: Engine


@dataclass(frozen=True, slots=True)
class HeatMap:
    """`largest` is the strongest effect of a spot on quality, in points; below `FAINTEST_SCALE` no spot stands out.
    `model` is the digest of the model that looked."""

    picture: Rendered
    largest: float
    model: str

    @property
    def is_flat(self) -> bool:
        return self.largest < FAINTEST_SCALE


class HeatMaps:
    """Makes heat maps, one at a time. Safe to use from several threads.

    `open_explain_engine` is called when the first one is asked for; `close_explain_engine` ends what it opened.
    """

    def __init__(
        self,
        renderer: Renderer,
        open_explain_engine: Callable[[], ExplainEngine],
        close_explain_engine: Callable[[ExplainEngine], None],
        *,
        cache_bytes: int,
    ) -> None:
        self._renderer = renderer
        self._open = open_explain_engine
        self._close = close_explain_engine
        self._sight: ExplainEngine | None = None
        self._known: LruCache[HeatMap] = LruCache(cache_bytes)
        self._asked = threading.BoundedSemaphore(AT_ONCE)
        self._turn = threading.Lock()
        self._closed = False

    def known(self, reference: ImageReference, content_hash: str | None, frame: int = 0) -> HeatMap | None:
        """One that was made before."""
        return self._known.get((self._renderer.name(reference, content_hash, frame),))

    def make(self, reference: ImageReference, content_hash: str | None, frame: int = 0) -> HeatMap:
        """Of an animation for the frame of this number.

        Raises Busy, NoEngine, EngineError, and the renderer's errors.
        """
        if not self._asked.acquire(blocking=False):
            raise Busy("others are waiting for heat maps; try again in a few seconds")
        try:
            with self._turn:
                if (known := self.known(reference, content_hash, frame)) is not None:  # made while we waited
                    return known
                made = self._made(self._opened(), reference, content_hash, frame)
        finally:
            self._asked.release()
        self._known.put((self._renderer.name(reference, content_hash, frame),), made, len(made.picture.data))
        return made

    def close(self) -> None:
        with self._turn:
            self._closed = True
            if self._sight is not None:
                self._close(self._sight)
                self._sight = None

    def _opened(self) -> ExplainEngine:
        if self._closed:
            raise NoEngine("the desk is closing")
        if self._sight is None:
            try:
                self._sight = self._open()
            except Exception as error:
                log.exception("heat_maps_without_engine")
                raise NoEngine(f"this desk has no engine to look with: {error}") from error
        return self._sight

    def _made(
        self, explain_engine: ExplainEngine, reference: ImageReference, content_hash: str | None, frame: int
    ) -> HeatMap:
        pixels = self._renderer.pixels(reference, content_hash, frame)
        found = explain(explain_engine.model, explain_engine.engine, pixels, make_views)
        photo = Image.fromarray(pixels)
        photo.thumbnail((SCREEN_SIDE, SCREEN_SIDE), Image.Resampling.LANCZOS)
        if max(photo.size) < SMALLEST_SIDE:
            scale = SMALLEST_SIDE / max(photo.size)
            size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
            photo = photo.resize(size, Image.Resampling.BICUBIC)
        height, width = pixels.shape[:2]
        picture = encoded(heat_map(photo, found.relief), width, height)
        return HeatMap(picture, float(np.abs(found.relief).max()), explain_engine.model.manifest.digest)
