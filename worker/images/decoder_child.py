"""The process that decodes images. `decoder_process.py` starts it and asks it.

Once the libraries are loaded it confines itself (`sandbox.py`).
"""

import importlib
import mmap
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worker.images.decode import DecodeLimits
from worker.images.decoded_views import DecodedViews, decode_views
from worker.images.decoder_protocol import (
    MESSAGE_CHARACTERS,
    Decoded,
    DecoderAnswer,
    DecodeRequest,
    DecoderOptions,
    ImageRefused,
    MemoryRequest,
)
from worker.images.errors import ImageError
from worker.images.sandbox import confine, limit_cpu, receive, run, send

_LOADED_AT_FIRST_USE: Final = ("avif", "heic", "jxl", "pillow_formats")


class _OwnersBudget:
    """The owner of the processes says when memory is free: they share one budget."""

    def __init__(self, connection: socket.socket, most: int) -> None:
        """`most`: bytes that this process may have."""
        self._connection = connection
        self._most = most

    @contextmanager
    def reserve(self, size: int) -> Iterator[None]:
        _say(self._connection, MemoryRequest(size=min(size, self._most)))
        receive(self._connection)
        yield


def serve(connection: socket.socket, shared: int) -> None:
    """Decodes image after image. Raises EOFError or ConnectionError when the owner has ended."""
    options = DecoderOptions.model_validate_json(receive(connection))
    limits = DecodeLimits(options.max_pixels, options.formats, options.animation_frames, options.max_animation_pixels)
    for name in _LOADED_AT_FIRST_USE:
        importlib.import_module(f"worker.images.{name}")
    Image.init()
    budget = _OwnersBudget(connection, options.memory_bytes)
    memory = mmap.mmap(shared, options.shared_bytes)
    os.close(shared)
    confine(memory_bytes=_addresses() + options.memory_bytes)
    send(connection, b"")
    while True:
        request = DecodeRequest.model_validate_json(receive(connection))
        limit_cpu(options.cpu_seconds)
        data = memory[: request.length]
        try:
            made = decode_views(
                data, limits, options.views, wants_pixels=request.wants_pixels, frame=request.frame, budget=budget
            )
            _say(connection, _put(made, memory, list(options.views)))
        except ImageError as error:
            _say(connection, ImageRefused(reason=error.reason, message=str(error)[:MESSAGE_CHARACTERS]))


def _put(made: DecodedViews, memory: mmap.mmap, names: list[str]) -> Decoded:
    arrays: list[NDArray[np.uint8]] = [made.views[name] for name in names]
    height = width = 0
    if made.pixels is not None:
        arrays.append(made.pixels)
        height, width = made.pixels.shape[:2]
    at = 0
    for array in arrays:
        np.frombuffer(memory, np.uint8, array.size, at)[:] = array.reshape(-1)
        at += array.size
    return Decoded(frame_count=made.frame_count, numbers=made.numbers, height=height, width=width, seconds=made.seconds)


def _say(connection: socket.socket, answer: MemoryRequest | ImageRefused | Decoded) -> None:
    send(connection, DecoderAnswer(answer=answer).model_dump_json().encode())


def _addresses() -> int:
    """How many the process has now."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    run(serve)
