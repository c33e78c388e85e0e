"""Scores many images in one process, with the same pipeline as the stream. Results are in the order of the sources."""

import os
import random
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry

from schemas import Failure, ImageEvent, Provenance, Route, Scores
from worker.cli.sources import ImageSource
from worker.images.decoded_views import ViewDecoder
from worker.images.fetch import Fetcher
from worker.images.provenance.reader import ProvenanceReader
from worker.images.thumbnail import thumbnail
from worker.judging.batch_runner import BatchRunner
from worker.judging.job import Job
from worker.judging.judgement import Judgement
from worker.judging.lookup import NoScoreStore
from worker.judging.options import PipelineOptions
from worker.judging.parts import PipelineParts
from worker.judging.pipeline import JudgingPipeline
from worker.judging.prepare import Preparer
from worker.judging.retries import RetryPolicy
from worker.judging.router import DEFAULT_PRIORITY, PolicyRouter
from worker.policy import Policy
from worker.policy.watch import ActivePolicies
from worker.scoring.engine import Engine
from worker.scoring.model import Model
from worker.telemetry.metrics import Metrics

RETRIES: Final = RetryPolicy(max_attempts=3, base_seconds=0.5, max_seconds=5.0, deadline_seconds=60.0)
BATCH_WAIT_SECONDS: Final = 5.0
"""How long a batch that is not full waits for images that are being prepared."""
IDLE_SECONDS: Final = 0.5
BATCHES_IN_FLIGHT: Final = 1


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome for one image: `scores` or a `failure`, and a route."""

    name: str
    route: Route
    scores: Scores | None = None
    failure: Failure | None = None
    content_hash: str | None = None
    thumbnail: bytes | None = None
    provenance: Provenance | None = None


@dataclass(slots=True, eq=False)
class SourceJob(Job):
    """One source of the command line; `result` is set once it is judged."""

    name: str
    _: KW_ONLY
    result: Result | None = None
    thumbnail: bytes | None = None

    def fetched(self, content_hash: str) -> None:
        """The same image always gets the same event id, so that policies that sample by id give the same result."""
        self.content_hash = content_hash
        self.event = self.event.model_copy(update={"id": content_hash})


class Scorer:
    """Scores images with one model and one policy.

    Memory is bounded: at most a few batches of images are prepared at a time. An image that cannot be judged gives a
    Result with a failure. `prompt`: the generation prompt of all images, if known. The caller closes fetcher and
    engine.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        policy: Policy,
        fetcher: Fetcher,
        *,
        batch_size: int,
        decoder: ViewDecoder,
        threads: int | None = None,
        tenant: str = "default",
        prompt: str | None = None,
        thumbnails: bool = False,
        provenance: ProvenanceReader | None = None,
        retries: RetryPolicy = RETRIES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._engine = engine
        self._policy = policy
        self._fetcher = fetcher
        self._batch_size = min(batch_size, engine.max_batch)
        self._decoder = decoder
        self._threads = threads or 2 * (os.cpu_count() or 1)
        self._tenant = tenant
        self._prompt = prompt
        self._makes_thumbnails = thumbnails
        self._provenance = provenance
        self._retries = retries
        self._clock = clock
        self._lookahead = max(3 * self._batch_size, self._threads)
        self._thumbnails: OrderedDict[str, bytes] = OrderedDict()

    def score(self, sources: Iterable[ImageSource]) -> Iterator[Result]:
        """One result for each source, in order. Raises EngineLost when the engine works only in a new process."""
        with ExitStack() as resources:
            pipeline = self._open_pipeline(resources)
            pending: deque[SourceJob | Result] = deque()
            remaining = iter(sources)
            more_follows = True
            while more_follows or pending:
                while more_follows and len(pending) < self._lookahead:
                    source = next(remaining, None)
                    if source is None:
                        more_follows = False
                    else:
                        pending.append(self._submit(pipeline, source))
                while pending and (result := _result_of(pending[0])) is not None:
                    pending.popleft()
                    yield result
                if pending and (not more_follows or len(pending) >= self._lookahead):
                    self._wait(pipeline)

    def _wait(self, pipeline: JudgingPipeline[SourceJob]) -> None:
        """Waits for the next result. Nothing is submitted meanwhile, so batches that are not full start."""
        pipeline.turn(self._clock())
        pipeline.mailbox.read(pipeline.wait_seconds(self._clock(), IDLE_SECONDS))
        pipeline.check()

    def _submit(self, pipeline: JudgingPipeline[SourceJob], source: ImageSource) -> SourceJob | Result:
        if source.reference is None:
            failure = Failure(reason=source.reason, message=source.problem)
            return Result(source.name, self._policy.failure_route(self._tenant, DEFAULT_PRIORITY), failure=failure)
        event = ImageEvent(
            id="not-fetched-yet",
            occurred_at=datetime.now(UTC),
            tenant=self._tenant,
            image=source.reference,
            prompt=self._prompt,
        )
        job = SourceJob(event, self._clock(), source.name)
        pipeline.submit([job])
        pipeline.turn(self._clock(), more_follows=True)
        return job

    def _open_pipeline(self, resources: ExitStack) -> JudgingPipeline[SourceJob]:
        pool = resources.enter_context(ThreadPoolExecutor(self._threads, thread_name_prefix="prepare"))
        metrics = Metrics(CollectorRegistry())  # these metrics are not exported
        store = NoScoreStore()
        batches: BatchRunner[SourceJob] = BatchRunner(
            self._engine, self._model, store, metrics, batches_in_flight=BATCHES_IN_FLIGHT
        )
        resources.callback(batches.close)
        resources.callback(pool.shutdown, wait=False, cancel_futures=True)
        active = ActivePolicies(self._policy)
        parts = PipelineParts(
            preparer=Preparer(
                self._fetcher,
                store,
                self._decoder,
                provenance=self._provenance,
                on_decoded=self._make_thumbnail if self._makes_thumbnails else None,
            ),
            batches=batches,
            router=PolicyRouter(lambda: active, metrics),
            cache=store,
            prepare_pool=pool,
            metrics=metrics,
            clock=self._clock,
            rng=random.Random(),  # noqa: S311  # jitter is no secret
        )
        options = PipelineOptions(
            batch_size=self._batch_size,
            batch_wait_seconds=BATCH_WAIT_SECONDS,
            batches_in_flight=BATCHES_IN_FLIGHT,
            prepare_threads=self._threads,
            retries=self._retries,
            waits_for_outages=False,
        )
        return JudgingPipeline(parts, options, deliver=self._deliver)

    def _make_thumbnail(self, job: SourceJob, pixels: NDArray[np.uint8]) -> None:
        """Runs on a thread of the pool."""
        job.thumbnail = thumbnail(pixels)

    def _deliver(self, job: SourceJob, judgement: Judgement) -> None:
        job.result = Result(
            job.name,
            judgement.route,
            None if judgement.failure else judgement.scores,
            judgement.failure,
            None if judgement.failure else job.content_hash,
            None if judgement.failure else self._thumbnail_of(job),
            None if judgement.failure else judgement.provenance,
        )

    def _thumbnail_of(self, job: SourceJob) -> bytes | None:
        """A duplicate was not decoded. It gets the thumbnail of the job that was, which is recent."""
        content_hash = job.content_hash or ""
        if job.thumbnail is None:
            return self._thumbnails.get(content_hash)
        self._thumbnails[content_hash] = job.thumbnail
        if len(self._thumbnails) > self._lookahead:
            self._thumbnails.popitem(last=False)
        return job.thumbnail


def _result_of(pending: SourceJob | Result) -> Result | None:
    return pending if isinstance(pending, Result) else pending.result
