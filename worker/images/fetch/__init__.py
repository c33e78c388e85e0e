"""From a reference to the encoded image."""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, assert_never

from schemas import FileReference, HttpReference, ImageReference, InlineReference, S3Reference
from worker.images.errors import TransientFetchError
from worker.images.fetch.base import FetchedImage, Fetcher
from worker.images.fetch.file import FileFetcher
from worker.images.fetch.inline import InlineFetcher
from worker.images.memory import MemoryBudget
from worker.settings import Settings, SettingsError

__all__ = ["FetchedImage", "Fetcher", "build_fetcher"]


def build_fetcher(settings: Settings, *, when_needed: bool = False) -> Fetcher:
    """A fetcher for every kind of reference, within the limits of the settings.

    `when_needed`: those for S3 and HTTP are made at the first reference of their kind, as their libraries are slow to
    load. Otherwise all are made here: raises SettingsError where the settings of S3 make no client.
    """
    max_bytes = settings.images.max_bytes
    memory = MemoryBudget(settings.images.fetch_memory_bytes)
    fetcher = _AnyFetcher(
        s3=_Lazy(partial(_s3_fetcher, settings, memory)),
        http=_Lazy(partial(_http_fetcher, settings, memory)),
        file=FileFetcher(settings.files.roots, max_bytes=max_bytes, memory=memory),
        inline=InlineFetcher(max_bytes=max_bytes),
    )
    if not when_needed:
        fetcher.open()
    return fetcher


def _s3_fetcher(settings: Settings, memory: MemoryBudget) -> Any:
    from worker.images.fetch.s3 import S3Fetcher

    return S3Fetcher(
        settings.s3,
        max_bytes=settings.images.max_bytes,
        memory=memory,
        timeout_seconds=settings.images.fetch_timeout_seconds,
        min_bytes_per_second=settings.images.min_bytes_per_second,
        max_connections=settings.intake.prepare_threads or 2 * (os.cpu_count() or 1),
    )


def _http_fetcher(settings: Settings, memory: MemoryBudget) -> Any:
    from worker.images.fetch.http import HttpFetcher

    return HttpFetcher(
        settings.http,
        max_bytes=settings.images.max_bytes,
        memory=memory,
        timeout_seconds=settings.images.fetch_timeout_seconds,
        min_bytes_per_second=settings.images.min_bytes_per_second,
    )


class _Lazy:
    """A fetcher that is made when it is first needed. Safe to use from several threads."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: Any = None

    def open(self) -> Any:
        """The fetcher. Raises SettingsError where the settings make none."""
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made

    def fetch(self, reference: ImageReference) -> FetchedImage:
        try:
            fetcher = self._made or self.open()
        except SettingsError as error:  # a fault of this worker, not of the image
            raise TransientFetchError(str(error)) from error
        fetched: FetchedImage = fetcher.fetch(reference)
        return fetched

    def close(self) -> None:
        if self._made is not None:
            self._made.close()


class _AnyFetcher:
    """Hands each reference to the fetcher of its kind."""

    def __init__(self, *, s3: _Lazy, http: _Lazy, file: FileFetcher, inline: InlineFetcher) -> None:
        self._s3 = s3
        self._http = http
        self._file = file
        self._inline = inline

    def open(self) -> None:
        """Makes the fetchers that are made when needed. Raises SettingsError."""
        self._s3.open()
        self._http.open()

    def fetch(self, reference: ImageReference) -> FetchedImage:
        match reference:
            case S3Reference():
                return self._s3.fetch(reference)
            case HttpReference():
                return self._http.fetch(reference)
            case FileReference():
                return self._file.fetch(reference)
            case InlineReference():
                return self._inline.fetch(reference)
            case _:
                assert_never(reference)

    def close(self) -> None:
        for fetcher in (self._s3, self._http, self._file, self._inline):
            fetcher.close()
