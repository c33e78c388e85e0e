"""From a reference to the encoded image."""

import os
from typing import assert_never

from schemas import FileReference, HttpReference, ImageReference, InlineReference, S3Reference
from worker.images.fetch.base import FetchedImage, Fetcher
from worker.images.fetch.file import FileFetcher
from worker.images.fetch.http import HttpFetcher
from worker.images.fetch.inline import InlineFetcher
from worker.images.fetch.s3 import S3Fetcher
from worker.settings import Settings

__all__ = ["FetchedImage", "Fetcher", "build_fetcher"]


def build_fetcher(settings: Settings) -> Fetcher:
    """A fetcher for every kind of reference, within the limits of the settings.

    Raises SettingsError where those of S3 make no client.
    """
    max_bytes = settings.images.max_bytes
    timeout_seconds = settings.images.fetch_timeout_seconds
    threads = settings.intake.prepare_threads or 2 * (os.cpu_count() or 1)
    return _AnyFetcher(
        s3=S3Fetcher(settings.s3, max_bytes=max_bytes, timeout_seconds=timeout_seconds, max_connections=threads),
        http=HttpFetcher(settings.http, max_bytes=max_bytes, timeout_seconds=timeout_seconds),
        file=FileFetcher(settings.files.roots, max_bytes=max_bytes),
        inline=InlineFetcher(max_bytes=max_bytes),
    )


class _AnyFetcher:
    """Hands each reference to the fetcher of its kind."""

    def __init__(self, *, s3: S3Fetcher, http: HttpFetcher, file: FileFetcher, inline: InlineFetcher) -> None:
        self._s3 = s3
        self._http = http
        self._file = file
        self._inline = inline

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
