"""Where each image is decoded: on the thread that asks, or in a process of its own."""

import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from schemas import FailureReason
from worker.images.decode import DECODE_MEMORY, DecodeLimits
from worker.images.decoded_views import DecodedViews, ThreadDecoder
from worker.images.decoder_process import SUPPORTED, DecoderDied, DecoderProcess
from worker.images.errors import DecoderUnavailableError, ImageError
from worker.images.formats import HEAD_BYTES, sniff
from worker.images.sandbox_pool import SandboxPool
from worker.images.sandbox_process import SandboxError
from worker.settings import ImageSettings, SettingsError
from worker.settings.image_format import ImageFormat
from worker.view import ViewSpec

log = structlog.get_logger(__name__)

SMALL_BYTES: Final = 2 * 1024 * 1024
THREAD_FORMATS: Final = frozenset({ImageFormat.JPEG, ImageFormat.PNG})
MOST_BYTES_A_PIXEL: Final = 28
"""What a decoder takes at most: JPEG XL and JPEG 2000, for samples of 32 bits."""
PAUSE_SECONDS: Final = 1.0
"""How long no process is started after one could not be."""


class DecoderPool:
    """Decodes images of any sender. Safe for several threads; each has a process of its own while it decodes there.

    A process that dies costs one image: it is decoded once more in another process, and refused when that one dies,
    too. A process that exceeds a limit costs its image at once.
    """

    def __init__(
        self,
        limits: DecodeLimits,
        views: Mapping[str, ViewSpec],
        settings: ImageSettings,
        *,
        on_death: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_death` is called for each process that died at its work. Raises SettingsError where the settings ask for
        processes that this system cannot have."""
        if settings.decoder_processes == "all" and not SUPPORTED:
            raise SettingsError("images.decoder_processes is all, which needs Linux; set it to auto")
        self._limits = limits
        self._views = views
        self._thread = ThreadDecoder(limits, views)
        self._settings = settings
        self._on_death = on_death
        self._clock = clock
        self._processes = SandboxPool(self._start)
        self._failure: str | None = None
        self._start_again_at = float("-inf")

    def decode(self, data: bytes, *, wants_pixels: bool = False, frame: int | None = None) -> DecodedViews:
        """Raises ImageError for what cannot be judged, DecoderUnavailableError while no process can be started."""
        if not self._needs_process(data):
            return self._thread.decode(data, wants_pixels=wants_pixels, frame=frame)
        try:
            return self._in_process(data, wants_pixels=wants_pixels, frame=frame)
        except DecoderDied as death:
            if death.blames_image:
                raise _blamed(death) from death
        try:
            return self._in_process(data, wants_pixels=wants_pixels, frame=frame)
        except DecoderDied as death:
            raise _blamed(death) from death

    def health_problems(self) -> tuple[str, ...]:
        """Why images cannot be decoded; empty when they can. From any thread."""
        failure = self._failure
        return () if failure is None else (f"decoder processes cannot be started: {failure}",)

    def close(self) -> None:
        self._processes.close()

    def _needs_process(self, data: bytes) -> bool:
        match self._settings.decoder_processes:
            case "off":
                return False
            case "all":
                return True
            case "auto":
                return SUPPORTED and (len(data) > SMALL_BYTES or sniff(data[:HEAD_BYTES]) not in THREAD_FORMATS)

    def _in_process(self, data: bytes, *, wants_pixels: bool, frame: int | None) -> DecodedViews:
        process = self._processes.take()
        try:
            made = process.decode(data, wants_pixels=wants_pixels, frame=frame)
        except DecoderDied as death:
            process.close()
            self._on_death()
            log.warning("decoder_died", size=len(data), reason=str(death), pid=process.pid)
            raise
        except ImageError:
            self._processes.give_back(process)
            raise
        except BaseException:
            process.close()  # whatever it was, the two may be out of step
            raise
        self._processes.give_back(process)
        self._failure = None
        return made

    def _start(self) -> DecoderProcess:
        if self._clock() < self._start_again_at:
            raise DecoderUnavailableError(f"no decoder process can be started: {self._failure}")
        try:
            process = DecoderProcess(
                self._limits,
                self._views,
                DECODE_MEMORY,
                max_bytes=self._settings.max_bytes,
                memory_bytes=MOST_BYTES_A_PIXEL * self._limits.max_pixels,
            )
        except (SandboxError, OSError) as error:
            self._failure = str(error)
            self._start_again_at = self._clock() + PAUSE_SECONDS
            log.warning("decoder_not_started", error=str(error))
            raise DecoderUnavailableError(f"no decoder process can be started: {error}") from error
        self._failure = None
        return process


def _blamed(death: DecoderDied) -> ImageError:
    return ImageError(FailureReason.UNDECODABLE_IMAGE, f"the image could not be decoded: {death}")
