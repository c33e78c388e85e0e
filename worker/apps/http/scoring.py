"""Judges the events of HTTP requests, with the same pipeline as the stream."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from schemas import Digest, Failure, ImageEvent, Provenance, Route, Scores, Timings
from worker.judging.job import Job
from worker.judging.judgement import Judgement
from worker.judging.options import PipelineOptions
from worker.judging.parts import PipelineParts
from worker.judging.pipeline import JudgingPipeline
from worker.judging.retries import RetryPolicy
from worker.scoring.engine import EngineError
from worker.settings import IntakeSettings

log = structlog.get_logger(__name__)

IDLE_SECONDS: Final = 0.5
"""How long the pipeline's thread waits when nothing is due. A request wakes it."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Judged:
    """The scores and the route of an event's image."""

    event: ImageEvent
    content_hash: str
    scores: Scores
    route: Route
    policy: Digest
    cached: bool
    timings: Timings
    provenance: Provenance | None = None


class NotJudged(Exception):
    """The event could not be judged. `retriable`: the cause is transient, so the caller may send it again."""

    def __init__(self, failure: Failure, *, retriable: bool) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.retriable = retriable


@dataclass(slots=True, eq=False)
class RequestJob(Job):
    """The event of one request. `answer` is done when the event is judged."""

    answer: "Future[Judged]"


class Scoring:
    """Runs a pipeline on its own thread. Requests do not wait for a store or engine that is down: they fail at once,
    and callers may retry them.
    """

    def __init__(self, parts: PipelineParts[RequestJob], settings: IntakeSettings, *, max_batch: int) -> None:
        """`max_batch` is the engine's maximum batch size."""
        self._parts = parts
        self._pipeline: JudgingPipeline[RequestJob] = JudgingPipeline(
            parts, request_options(settings, max_batch), deliver=self._deliver
        )
        self._open: set[RequestJob] = set()
        self._closing = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="sluice-gateway-judging", daemon=True)
        self._thread.start()

    def begin(self, event: ImageEvent) -> "asyncio.Future[Judged]":
        """Starts to judge an event. It continues if the caller disconnects, because others may wait for the same image.
        The future raises NotJudged if the event could not be judged, EngineError if this process can judge nothing any
        more.
        """
        job = RequestJob(event, self._parts.clock(), Future())
        job.answer.set_running_or_notify_cancel()  # from now on it cannot be cancelled
        self._pipeline.mailbox.post(partial(self._submit, job))
        answer = asyncio.wrap_future(job.answer)
        answer.add_done_callback(_retrieve)
        return answer

    def check(self) -> None:
        """Raises EngineError if this process can judge nothing any more."""
        if self._failure is not None:
            raise self._ended(self._failure)

    async def close(self) -> None:
        """Waits for the events in progress, then ends the thread."""
        self._closing.set()
        self._pipeline.mailbox.post(lambda: None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        pipeline, clock = self._pipeline, self._parts.clock
        try:
            while not (self._closing.is_set() and pipeline.is_idle):
                self._parts.router.refresh()
                pipeline.turn(clock(), more_follows=True)
                pipeline.mailbox.read(pipeline.wait_seconds(clock(), IDLE_SECONDS))
                pipeline.check()
        except Exception as error:
            log.exception("gateway_judging_ended")
            self._failure = error
        for job in self._open:
            job.answer.set_exception(self._ended(self._failure))
        while not self._closing.is_set():  # no caller may wait for an answer that never comes
            with suppress(Exception):
                pipeline.mailbox.read(IDLE_SECONDS)

    def _submit(self, job: RequestJob) -> None:
        if self._failure is not None:
            job.answer.set_exception(self._ended(self._failure))
            return
        self._open.add(job)
        self._pipeline.submit([job])

    def _deliver(self, job: RequestJob, judgement: Judgement) -> None:
        self._open.discard(job)
        if judgement.failure is not None:
            job.answer.set_exception(NotJudged(judgement.failure, retriable=judgement.retriable))
            return
        if job.content_hash is None or judgement.scores is None:
            raise ValueError("a result without a failure has scores, and its job a content hash")
        timings = Timings.model_validate(job.timings(self._parts.clock()))
        job.answer.set_result(
            Judged(
                job.event,
                job.content_hash,
                judgement.scores,
                judgement.route,
                judgement.policy,
                judgement.cached,
                timings,
                judgement.provenance,
            )
        )

    def _ended(self, failure: Exception | None) -> EngineError:
        return EngineError(f"this gateway cannot judge images any more: {failure}; restart it")


def request_options(settings: IntakeSettings, max_batch: int) -> PipelineOptions:
    """Options with which a request fails at once where the stream would wait. The caller may retry."""
    once = RetryPolicy(1, settings.retry_base_seconds, settings.retry_max_seconds, settings.retry_deadline_seconds)
    return PipelineOptions(
        batch_size=min(settings.batch_size, max_batch),
        batch_wait_seconds=settings.batch_wait_seconds,
        batches_in_flight=settings.batches_in_flight,
        prepare_threads=settings.prepare_threads,
        retries=once,
        engine_outage_seconds=settings.engine_outage_seconds,
        waits_for_outages=False,
    )


def _retrieve(answer: "asyncio.Future[Judged]") -> None:
    """Marks the exception as retrieved, in case no caller waits for the answer any more."""
    if not answer.cancelled():
        answer.exception()


async def on_thread(threads: Executor, function: Callable[..., _T], *arguments: Any) -> _T:
    """Runs the function on a thread of `threads` and returns its result."""
    return await asyncio.get_running_loop().run_in_executor(threads, partial(function, *arguments))
