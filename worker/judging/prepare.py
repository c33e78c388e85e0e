"""From an event to the views that an engine takes, or to scores known before. Runs on many threads."""

import hashlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from schemas import FailureReason, ImageEvent, Provenance, S3Reference
from worker.cache.values import CachedScore, ScoreKey
from worker.images.decoded_views import ViewDecoder
from worker.images.errors import ImageError
from worker.images.fetch import FetchedImage, Fetcher
from worker.images.provenance.reader import ProvenanceReader
from worker.judging.animation import AnimationScore, SampledFrames
from worker.judging.job import Job
from worker.judging.lookup import ScoreStore
from worker.judging.single_flight import SingleFlight
from worker.telemetry.trace_context import stage_of

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class Prepared(Generic[J]):
    """Ready for the engine."""

    job: J
    key: ScoreKey
    views: Mapping[str, NDArray[np.uint8]]
    """View name → what the engine takes; of an animation with a leading axis, one entry for each sampled frame."""
    animation: SampledFrames | None = None
    provenance: Provenance | None = None
    """None where it is not read."""

    @property
    def rows(self) -> int:
        """How many rows of a batch it takes."""
        return 1 if self.animation is None else len(self.animation.numbers)


@dataclass(frozen=True, slots=True)
class Known(Generic[J]):
    """Scored before."""

    job: J
    score: CachedScore


@dataclass(frozen=True, slots=True)
class Duplicate(Generic[J]):
    """The same image is being scored for another job; its outcome serves both."""

    job: J


class Preparer(Generic[J]):
    """Fetches, hashes, looks up, decodes and makes views; one call an event, safe from many threads.

    Many threads fetch at a time, since fetching is waiting; only as many decode as there are processors. More would
    compete for the interpreter, which cost the engine beside them a twentieth of its speed.
    """

    def __init__(
        self,
        fetcher: Fetcher,
        cache: ScoreStore,
        decoder: ViewDecoder,
        *,
        animation_score: AnimationScore = "worst",
        provenance: ProvenanceReader | None = None,
        on_decoded: Callable[[J, NDArray[np.uint8]], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`on_decoded` is called with each decoded image, or the first frame of an animation, [height, width, 3]
        RGB, on the thread that decoded it."""
        self._fetcher = fetcher
        self._cache = cache
        self._decoder = decoder
        self._animation_score = animation_score
        self._provenance = provenance
        self._on_decoded = on_decoded
        self._clock = clock
        self._decoders = threading.BoundedSemaphore(len(os.sched_getaffinity(0)))

    def prepare(self, job: J, flights: SingleFlight[J]) -> Prepared[J] | Known[J] | Duplicate[J]:
        """What is to be done for the job. Raises ImageError, TransientFetchError or DecoderUnavailableError."""
        started = self._clock()
        with stage_of(job.trace, "fetch"):
            fetched = self._fetcher.fetch(job.event.image)
            content_hash = verified_hash(job.event, fetched)
        job.fetched(content_hash)
        job.fetch_ms = round((self._clock() - started) * 1000, 3)
        self._remember_alias(job.event, fetched, content_hash)
        key = self._cache.key(content_hash, job.event.prompt)
        if not flights.lead(key, job):
            return Duplicate(job)
        cached = self._cache.get([key])[0]
        if cached is not None:
            return Known(job, cached)
        with self._decoders, stage_of(job.trace, "decode"):
            started = self._clock()
            decoded = self._decoder.decode(fetched.data, wants_pixels=self._on_decoded is not None)
            if self._on_decoded is not None and decoded.pixels is not None:
                self._on_decoded(job, decoded.pixels)
            provenance = None if self._provenance is None else self._provenance.read(fetched.data)
            job.decode_ms = round((self._clock() - started) * 1000, 3)
        animation = None
        if decoded.frame_count > 1:
            animation = SampledFrames(decoded.frame_count, decoded.numbers, self._animation_score)
        return Prepared(job, key, decoded.views, animation, provenance)

    def _remember_alias(self, event: ImageEvent, fetched: FetchedImage, content_hash: str) -> None:
        if isinstance(event.image, S3Reference):
            fetched_as = event.image.model_copy(update={"etag": fetched.etag, "version_id": fetched.version_id})
            self._cache.put({}, {event.image: content_hash, fetched_as: content_hash})


def verified_hash(event: ImageEvent, fetched: FetchedImage) -> str:
    """The content hash. Raises ImageError when the event promised other bytes."""
    digest = hashlib.sha256(fetched.data).hexdigest()
    if event.sha256 is not None and event.sha256 != digest:
        raise ImageError(
            FailureReason.HASH_MISMATCH,
            f"the image's sha256 is {digest}, the event promised {event.sha256}; "
            "send the event again for what is stored now",
        )
    return f"sha256:{digest}"
