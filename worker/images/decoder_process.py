"""Decodes images in a process that a hostile one can only end."""

import fcntl
import mmap
import os
import signal
from collections.abc import Mapping
from typing import Final

import numpy as np
from pydantic import ValidationError

from worker.images.decode import DecodeLimits
from worker.images.decoded_views import DecodedViews
from worker.images.decoder_protocol import (
    Decoded,
    DecoderAnswer,
    DecodeRequest,
    DecoderOptions,
    ImageRefused,
    MemoryRequest,
)
from worker.images.errors import ImageError
from worker.images.memory import MemoryBudget
from worker.images.picture import Pixels
from worker.images.sandbox_process import SandboxProcess
from worker.view import ViewSpec

SUPPORTED: Final = hasattr(os, "memfd_create") and hasattr(fcntl, "F_ADD_SEALS")
"""Whether this system has sealed shared memory, as Linux has."""
CPU_SECONDS: Final = 20
"""For one image. A JPEG XL of 100 megapixels takes 5 s."""
ANSWER_SECONDS: Final = 60.0
"""For one image, and for the start of a process, on a machine that is busy."""
KEPT_BYTES: Final = 16 * 1024 * 1024
"""Of shared memory that was used; what is behind it is given back to the system after each image."""
SLACK_BYTES: Final = 1024 * 1024 * 1024
_CHILD: Final = "worker.images.decoder_child"


class DecoderDied(Exception):
    """The process has ended, or was ended, before it answered. `blames_image`: what it was doing was the cause."""

    def __init__(self, message: str, *, blames_image: bool) -> None:
        super().__init__(message)
        self.blames_image = blames_image


class DecoderProcess:
    """One process, for one thread at a time."""

    def __init__(
        self,
        limits: DecodeLimits,
        views: Mapping[str, ViewSpec],
        budget: MemoryBudget,
        *,
        max_bytes: int,
        memory_bytes: int,
        cpu_seconds: int = CPU_SECONDS,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        """`max_bytes`: of a file. `memory_bytes`: what an image may take at most. Raises SandboxError."""
        self._views = views
        self._limits = limits
        self._budget = budget
        self._answer_seconds = answer_seconds
        self._memory_bytes = memory_bytes + SLACK_BYTES
        shared_bytes = max(max_bytes, 3 * limits.max_pixels + self._views_bytes(limits.animation_frames))
        options = DecoderOptions(
            views=dict(views),
            max_pixels=limits.max_pixels,
            formats=tuple(limits.formats),
            animation_frames=limits.animation_frames,
            max_animation_pixels=limits.max_animation_pixels,
            shared_bytes=shared_bytes,
            memory_bytes=self._memory_bytes,
            cpu_seconds=cpu_seconds,
        )
        shared = os.memfd_create("sluice-decoder", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(shared, shared_bytes)
            # A process that made it shorter would end this one with SIGBUS.
            fcntl.fcntl(shared, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
            self._memory = mmap.mmap(shared, shared_bytes)
            try:
                self._process = SandboxProcess(
                    _CHILD, options.model_dump_json().encode(), answer_seconds=answer_seconds, descriptors=[shared]
                )
            except BaseException:
                self._memory.close()
                raise
        finally:
            os.close(shared)
        self.pid = self._process.pid

    def decode(self, data: bytes, *, wants_pixels: bool, frame: int | None = None) -> DecodedViews:
        """Raises ImageError, and DecoderDied; the process is then of no more use."""
        used = len(data)
        try:
            self._memory[:used] = data
            self._process.send(
                DecodeRequest(length=used, wants_pixels=wants_pixels, frame=frame).model_dump_json().encode()
            )
            reserved = 0
            try:
                while True:
                    answer = DecoderAnswer.model_validate_json(self._process.receive()).answer
                    if not isinstance(answer, MemoryRequest):
                        break
                    if reserved:
                        raise ValueError("it asks for memory twice")
                    if answer.size > self._memory_bytes:
                        raise ValueError("it asks for more memory than it may have")
                    self._budget.take(answer.size)
                    reserved = answer.size
                    self._process.send(b"")
            finally:
                if reserved:
                    self._budget.give_back(reserved)
            if isinstance(answer, ImageRefused):
                raise ImageError(answer.reason, answer.message)
            made, taken = self._take(answer, wants_pixels=wants_pixels, frame=frame)
            used = max(used, taken)
        except (OSError, EOFError, ValueError) as error:
            raise self._died(error) from error
        finally:
            self._give_back(used)
        return made

    def close(self) -> None:
        self._process.close()
        self._memory.close()

    def _take(self, answer: Decoded, *, wants_pixels: bool, frame: int | None) -> tuple[DecodedViews, int]:
        """Copies the arrays: the process could change them at any time. Raises ValueError for what cannot be."""
        frames = len(answer.numbers)
        if (
            frames > self._limits.animation_frames
            or answer.numbers != tuple(sorted(set(answer.numbers)))
            or answer.numbers[-1] >= answer.frame_count
        ):
            raise ValueError("it has other frames than were requested")
        if frame is not None and answer.numbers != (frame,):
            raise ValueError("it has another frame than was requested")
        leading = (frames,) if answer.frame_count > 1 else ()
        at = 0
        made: dict[str, Pixels] = {}
        for name, spec in self._views.items():
            made[name] = self._array(at, (*leading, *spec.shape))
            at += made[name].size
        pixels = None
        if wants_pixels:
            if not 0 < answer.height * answer.width <= self._limits.max_pixels:
                raise ValueError("it has more pixels than are allowed")
            pixels = self._array(at, (answer.height, answer.width, 3))
            at += pixels.size
        return DecodedViews(made, answer.frame_count, answer.numbers, pixels, answer.seconds), at

    def _array(self, at: int, shape: tuple[int, ...]) -> Pixels:
        return np.frombuffer(self._memory, np.uint8, int(np.prod(shape)), at).reshape(shape).copy()

    def _views_bytes(self, frames: int) -> int:
        return frames * sum(int(np.prod(spec.shape)) for spec in self._views.values())

    def _give_back(self, used: int) -> None:
        if used > KEPT_BYTES:
            self._memory.madvise(mmap.MADV_REMOVE, KEPT_BYTES)

    def _died(self, error: Exception) -> DecoderDied:
        exit_code = self._process.close()
        if isinstance(error, TimeoutError):
            return DecoderDied(f"it took longer than {self._answer_seconds:g} s", blames_image=True)
        if exit_code == -signal.SIGXCPU:
            return DecoderDied("it took too much processor time", blames_image=True)
        if isinstance(error, (ValidationError, ValueError)):
            return DecoderDied("its decoder gave a senseless answer", blames_image=True)
        how = f"signal {-exit_code}" if exit_code and exit_code < 0 else f"exit code {exit_code}"
        return DecoderDied(f"its decoder has died ({how})", blames_image=False)
