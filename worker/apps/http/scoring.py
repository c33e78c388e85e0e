"""Judges one event at a time as the intake judges those of the log: by the same stages, limits, cache and policy."""

import asyncio
import functools
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import structlog

from schemas import FailureReason, ImageEvent, Route, Scores, Timings
from worker.cache.score_cache import CachedScore, ScoreCache
from worker.images.errors import ImageError
from worker.intake.admission import Admission
from worker.intake.ledger import Ticket
from worker.intake.log import Partition, Record
from worker.intake.work import RecordJob, RecordWork
from worker.judging.batch_runner import BatchRunner, FailedBatch, ScoredBatch
from worker.judging.prepare import Duplicate, Known, Prepared, Preparer
from worker.judging.single_flight import SingleFlight
from worker.policy import Policy
from worker.scoring.engine import EngineError
from worker.settings import IntakeSettings

log = structlog.get_logger(__name__)

ATTEMPTS: Final = 2
"""So often an image is tried alone on an engine that is well, before it is to blame."""

_T = TypeVar("_T")

Outcome = CachedScore | ImageError | EngineError


class Batching(Protocol):
    """As `ray.serve.batch`: makes of a coroutine function that takes a list one that takes an element of it."""

    def __call__(
        self, *, max_batch_size: int, batch_wait_timeout_s: float, max_concurrent_batches: int
    ) -> Callable[
        [Callable[[list[Prepared[RecordJob]]], Awaitable[list[Outcome]]]],
        Callable[[Prepared[RecordJob]], Awaitable[Outcome]],
    ]: ...


@dataclass(frozen=True, slots=True)
class Judged:
    """What the model makes of an event's image, and where the policy sends it."""

    event: ImageEvent
    content_hash: str
    scores: Scores
    route: Route
    cached: bool
    timings: Timings


@dataclass(frozen=True, slots=True)
class Stages:
    """The intake's stages, put together for the gateway."""

    admission: Admission
    preparer: Preparer[RecordJob]
    batch_runner: BatchRunner[RecordJob]
    cache: ScoreCache


class Scoring:
    """For the thread of one event loop; what waits, waits on threads of its own."""

    def __init__(
        self,
        stages: Stages,
        settings: IntakeSettings,
        batching: Batching,
        *,
        max_batch: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`max_batch` is the largest that the engine takes."""
        self._stages = stages
        self._clock = clock
        self._pool = ThreadPoolExecutor(settings.prepare_threads, thread_name_prefix="sluice-gateway")
        self._flights: SingleFlight[RecordJob] = SingleFlight()
        self._parked: dict[RecordJob, asyncio.Future[Scores]] = {}
        self._offsets = itertools.count()
        self._tasks: set[asyncio.Task[Any]] = set()

        # A function and no method: Serve would take the first argument's attribute of that name for the method.
        async def run(batch: list[Prepared[RecordJob]]) -> list[Outcome]:
            return await self._run(batch)

        self._batched = batching(
            max_batch_size=min(settings.batch_size, max_batch),
            batch_wait_timeout_s=settings.batch_wait_seconds,
            max_concurrent_batches=settings.batches_in_flight,
        )(run)

    def begin(self, event: ImageEvent, policy: Policy) -> "asyncio.Task[Judged]":
        """Judges an event; goes on when whoever asked has left, as others may wait for the same image.

        The task raises ImageError when the image cannot be judged, TransientFetchError or EngineError when it could not
        be this time, PolicyError when a rule has no answer.
        """
        task = asyncio.get_running_loop().create_task(self._judge(event, policy))
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def close(self) -> None:
        """Waits for what is under way, then ends the threads."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # looked at, for when nobody waits for it any more

    async def _judge(self, event: ImageEvent, policy: Policy) -> Judged:
        job = self._job(event)
        scores, cached = await self._score(job)
        route = policy.route(event, scores)
        content_hash = job.content_hash or ""
        timings = Timings.model_validate(job.timings(self._clock()))
        return Judged(event, content_hash, scores, route, cached, timings)

    async def _score(self, job: RecordJob) -> tuple[Scores, bool]:
        """The scores, and whether they were there already."""
        known, _ = await on_thread(self._pool, self._stages.admission.look_up, [job])
        if known:
            return known[0][1], True
        # Before the job can be parked: whoever it waits for may be done at once.
        parked = self._parked[job] = asyncio.get_running_loop().create_future()
        try:
            outcome = await on_thread(self._pool, self._stages.preparer.prepare, job, self._flights)
            if isinstance(outcome, Duplicate):
                return await parked, True
            score = outcome.score if isinstance(outcome, Known) else await self._infer(outcome)
        except Exception as error:
            for follower in self._end_flight(job):
                follower.set_exception(error)
            raise
        finally:
            del self._parked[job]
        for follower in self._end_flight(job):
            follower.set_result(score.scores)
        return score.scores, isinstance(outcome, Known)

    async def _infer(self, prepared: Prepared[RecordJob]) -> CachedScore:
        outcome = await self._batched(prepared)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _run(self, batch: list[Prepared[RecordJob]]) -> list[Outcome]:
        """A batch through the engine; where it fails though the engine is well, its images one by one."""
        started = time.perf_counter()
        result = await self._infer_batch(batch)
        milliseconds = round((time.perf_counter() - started) * 1000, 3)
        for prepared in batch:
            prepared.job.engine_ms = milliseconds
        if isinstance(result, ScoredBatch):
            return list(result.scores)
        cause = f"{type(result.error).__name__}: {result.error}"[:1000]
        log.warning("batch_failed", size=len(batch), engine_is_healthy=result.engine_is_healthy, error=cause)
        if not result.engine_is_healthy:
            return [EngineError(f"the engine does not answer: {cause}")] * len(batch)
        if len(batch) > 1:
            return list(itertools.chain.from_iterable([await self._run([prepared]) for prepared in batch]))
        job = batch[0].job
        job.engine_failures += 1
        if job.engine_failures < ATTEMPTS:
            return await self._run(batch)
        return [ImageError(FailureReason.ENGINE_FAILED, f"the engine fails on this image: {cause}")]

    async def _infer_batch(self, batch: list[Prepared[RecordJob]]) -> ScoredBatch[RecordJob] | FailedBatch[RecordJob]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[ScoredBatch[RecordJob] | FailedBatch[RecordJob]] = loop.create_future()

        def report(result: ScoredBatch[RecordJob] | FailedBatch[RecordJob]) -> None:
            loop.call_soon_threadsafe(done.set_result, result)

        self._stages.batch_runner.start(batch, report)
        return await done

    def _end_flight(self, job: RecordJob) -> "Sequence[asyncio.Future[Scores]]":
        if job.content_hash is None:
            return []
        key = self._stages.cache.key(job.content_hash, job.event.prompt)
        return [self._parked[waiting] for waiting in self._flights.land(key, job)]

    def _job(self, event: ImageEvent) -> RecordJob:
        """The stages take jobs of records: a request is a record that stands in no log and is never committed."""
        record = Record(Partition("gateway", 0), next(self._offsets), value=None)
        work = RecordWork(record, Ticket(record.partition, 0, record.offset), [()], 1)
        return RecordJob(event, self._clock(), work, 0)


async def on_thread(threads: Executor, function: Callable[..., _T], *arguments: Any) -> _T:
    """What the function returns, from a thread of `threads`."""
    return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(function, *arguments))
