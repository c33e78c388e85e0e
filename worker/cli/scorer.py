"""Scores many images in one process: fetched and decoded by a pool, judged in batches, answered in order."""

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from schemas import Failure, FailureReason, ImageEvent, ImageReference, Route, Scores
from worker.cli.sources import Source
from worker.demo.report import thumbnail
from worker.images.decode import decode
from worker.images.errors import ImageError, TransientFetchError
from worker.images.fetch import Fetcher
from worker.images.views import make_views
from worker.policy import Policy, PolicyError
from worker.scoring.engine import Engine, EngineError
from worker.scoring.model import Model

FETCH_ATTEMPTS = 3
FETCH_WAIT_SECONDS = 0.5
PRIORITY = 50


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one image: `scores` or a `failure`, and in either case a route."""

    name: str
    route: Route
    scores: Scores | None = None
    failure: Failure | None = None
    content_hash: str | None = None
    thumbnail: bytes | None = None


@dataclass(frozen=True, slots=True)
class _Prepared:
    name: str
    reference: ImageReference
    content_hash: str
    views: Mapping[str, NDArray[np.uint8]]
    thumbnail: bytes | None


_Outcome = _Prepared | Result


class Scorer:
    """Scores images with one model and one policy.

    `score` holds a few batches of prepared images, whatever the number of sources. An image that cannot be judged
    becomes a Result with a failure; a batch that the engine fails on is tried image by image. `prompt`: what all images
    were made from, where that is known. The caller closes fetcher and engine.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        policy: Policy,
        fetcher: Fetcher,
        *,
        batch_size: int,
        max_pixels: int,
        threads: int | None = None,
        tenant: str = "default",
        prompt: str | None = None,
        thumbnails: bool = False,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._model = model
        self._engine = engine
        self._policy = policy
        self._fetcher = fetcher
        self._batch_size = min(batch_size, engine.max_batch)
        self._max_pixels = max_pixels
        self._threads = threads or 2 * (os.cpu_count() or 1)
        self._tenant = tenant
        self._prompt = prompt
        self._thumbnails = thumbnails
        self._wait = wait

    def score(self, sources: Iterable[Source]) -> Iterator[Result]:
        """One result a source, in the order of the sources."""
        waiting: list[_Outcome] = []
        ready = 0
        for outcome in self._prepare_all(sources):
            waiting.append(outcome)
            ready += isinstance(outcome, _Prepared)
            if ready == self._batch_size or len(waiting) == 4 * self._batch_size:
                yield from self._judge(waiting)
                waiting, ready = [], 0
        yield from self._judge(waiting)

    def _prepare_all(self, sources: Iterable[Source]) -> Iterator[_Outcome]:
        pool = ThreadPoolExecutor(self._threads, thread_name_prefix="prepare")
        pending: deque[Future[_Outcome]] = deque()
        try:
            for source in sources:
                pending.append(pool.submit(self._prepare, source))
                if len(pending) >= max(3 * self._batch_size, self._threads):
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, source: Source) -> _Outcome:
        name, reference = source.name, source.reference
        if reference is None:
            return self._failed(name, FailureReason.FETCH_FAILED, source.problem)
        try:
            data = self._fetch(reference)
            pixels = decode(data, max_pixels=self._max_pixels)
            views = make_views(pixels, self._model.manifest.views)
        except ImageError as error:
            return self._failed(name, error.reason, str(error))
        except TransientFetchError as error:
            return self._failed(name, FailureReason.FETCH_FAILED, str(error), FETCH_ATTEMPTS)
        content_hash = "sha256:" + hashlib.sha256(data).hexdigest()
        return _Prepared(name, reference, content_hash, views, thumbnail(pixels) if self._thumbnails else None)

    def _fetch(self, reference: ImageReference) -> bytes:
        for attempt in range(1, FETCH_ATTEMPTS):
            try:
                return self._fetcher.fetch(reference).data
            except TransientFetchError:
                self._wait(attempt * FETCH_WAIT_SECONDS)
        return self._fetcher.fetch(reference).data

    def _judge(self, outcomes: Sequence[_Outcome]) -> Iterator[Result]:
        batch = [outcome for outcome in outcomes if isinstance(outcome, _Prepared)]
        results = iter(self._run(batch) if batch else ())
        for outcome in outcomes:
            yield next(results) if isinstance(outcome, _Prepared) else outcome

    def _run(self, batch: Sequence[_Prepared]) -> Sequence[Result]:
        views = {name: np.stack([image.views[name] for image in batch]) for name in self._model.manifest.views}
        try:
            prompts = None if self._prompt is None else [self._prompt] * len(batch)
            all_scores = self._model.heads.score(self._engine.infer(views, prompts))
        except EngineError as error:
            if len(batch) == 1:
                return [self._failed(batch[0].name, FailureReason.ENGINE_FAILED, str(error))]
            return [result for image in batch for result in self._run([image])]
        return [self._route(image, scores) for image, scores in zip(batch, all_scores, strict=True)]

    def _route(self, image: _Prepared, scores: Scores) -> Result:
        now = datetime.now(UTC)
        event = ImageEvent(
            id=image.content_hash, occurred_at=now, tenant=self._tenant, image=image.reference, prompt=self._prompt
        )
        try:
            route = self._policy.route(event, scores)
        except PolicyError as error:
            return self._failed(image.name, FailureReason.POLICY_FAILED, str(error))
        return Result(image.name, route, scores, None, image.content_hash, image.thumbnail)

    def _failed(self, name: str, reason: FailureReason, message: str, attempts: int = 1) -> Result:
        failure = Failure(reason=reason, message=message, attempts=attempts)
        return Result(name, self._policy.failure_route(self._tenant, PRIORITY), failure=failure)
