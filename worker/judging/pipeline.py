"""The one way from an event to a judgement: fetch, decode, views, batch, engine, heads, policy.

The stream, the gateway and `sluice score` each run a pipeline with their own kind of job, and differ only in what they
do with a judgement and in `PipelineOptions`.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Generic, TypeVar

import structlog

from schemas import Failure, FailureReason
from worker.cache.values import CachedScore, ScoreKey
from worker.images.errors import DecoderUnavailableError, ImageError, TransientFetchError
from worker.judging.batch_runner import FailedBatch, Fault, ScoredBatch
from worker.judging.batcher import Batcher
from worker.judging.engine_breaker import EngineBreaker, described, engine_failure, is_to_blame
from worker.judging.fetch_retries import Admitted, Deferred, FetchRetries, GivenUp
from worker.judging.in_flight import InFlight, JobWatch
from worker.judging.job import Job
from worker.judging.judgement import Judgement
from worker.judging.lookup import split_known
from worker.judging.mailbox import Mailbox
from worker.judging.options import PipelineOptions
from worker.judging.parts import PipelineParts
from worker.judging.prepare import Duplicate, Known, Prepared
from worker.judging.ready_queue import ReadyQueue
from worker.judging.single_flight import SingleFlight
from worker.judging.stores import Store, Stores, troubles
from worker.scoring.engine import EngineLost

log = structlog.get_logger(__name__)

J = TypeVar("J", bound=Job)


class JudgingPipeline(Generic[J]):
    """Judges each job that is submitted, once, and hands its judgement to `deliver`.

    Everything here happens on the thread that calls `submit`, `turn` and `mailbox.read`, but for fetching, decoding and
    inference, which report back through the mailbox. No call waits long.
    """

    def __init__(
        self,
        parts: PipelineParts[J],
        options: PipelineOptions,
        *,
        deliver: Callable[[J, Judgement], None],
        defer: Callable[[J, str], None] = lambda _job, _reason: None,
        is_wanted: Callable[[J], bool] = lambda _job: True,
        take_on: Callable[[Sequence[J]], Sequence[J]] = lambda jobs: jobs,
        mailbox: Mailbox | None = None,
        watch: JobWatch[J] | None = None,
    ) -> None:
        """`defer` takes a job back that may be deferred, with the reason. `is_wanted`: whether a job must still be
        judged; jobs that are not are dropped without a judgement. `take_on` is called with jobs whose scores are not
        known, and returns those that are to be judged now; the others are the owner's again."""
        self.mailbox = mailbox or Mailbox()
        self.engine_lost: EngineLost | None = None
        """The error after which only a new process can judge; the pipeline then starts no more batches."""
        self.begun = 0  # jobs since the start; each attempt counts
        self._parts = parts
        self._options = options
        self._deliver = deliver
        self._defer = defer
        self._is_wanted = is_wanted
        self._take_on = take_on
        self._in_flight: InFlight[J] = InFlight(watch)
        self._fetches: FetchRetries[J] = FetchRetries(
            options.retries,
            options.stores or Stores(),
            parts.rng,
            outage_seconds=options.store_outage_seconds,
            waits_for_stores=options.waits_for_outages,
            hold_seconds=options.hold_seconds,
            deferred_deadline_seconds=options.deferred_deadline_seconds,
            is_halted=lambda: self.is_halted,
            on_failure=lambda store: parts.metrics.fetch_failures.add({store.name: 1}),
        )
        self._engine = EngineBreaker(outage_seconds=options.engine_outage_seconds)
        self._flights: SingleFlight[J] = SingleFlight()
        self._ready: ReadyQueue[J] = ReadyQueue(options.lane_shares.weights(), options.tenant_weight)
        self._batcher: Batcher[J] = Batcher(options.batch_size, options.batch_wait_seconds)
        self._preparing = 0
        self._batches_running = 0
        self._images_running = 0
        self._checking = False
        self._stopped = False

    # -- for the owner ---------------------------------------------------------------------------------------------

    def submit(self, jobs: Sequence[J]) -> None:
        """Takes jobs on. Those whose scores are known already are delivered before this returns."""
        known, unknown = split_known(jobs, self._parts.cache)
        router = self._parts.router
        lacking: list[tuple[J, Judgement]] = []
        for job, score in known:
            judgement = router.judge_job(job, score, cached=True)
            if self._options.wants_features and judgement.needs_features:
                lacking.append((job, judgement))
            else:
                self._deliver(job, judgement)
        if lacking:
            unknown = [*unknown, *self._deliver_with_features(lacking)]
        if unknown:
            self._ready.extend(self._take_on(unknown))

    def turn(self, now: float, *, more_follows: bool = False) -> None:
        """Starts what can be started. `more_follows`: a batch that is not full waits for more images, even if none is
        being prepared."""
        self._ready.extend(self._fetches.due(now))
        self._dispatch(now)
        self._start_batches(now, more_follows=more_follows)

    def check(self) -> None:
        """Raises EngineLost once only a new process can judge."""
        if self.engine_lost is not None:
            raise self.engine_lost

    def stop(self) -> None:
        """Drops what is not with the engine; batches that run are finished and delivered."""
        self._stopped = True
        self._ready.clear()
        self._fetches.clear()
        for prepared in self._batcher.clear():
            self._in_flight.remove(prepared.job)

    @property
    def is_idle(self) -> bool:
        """Nothing is under way, and nothing waits."""
        return not (self.is_working or self._ready or self.has_retries)

    @property
    def is_working(self) -> bool:
        """Images are being prepared, batched or scored: what comes next will be known soon."""
        return bool(self._preparing or self._batches_running or len(self._batcher))

    @property
    def is_inferring(self) -> bool:
        """Batches are with the engine."""
        return self._batches_running > 0

    @property
    def is_halted(self) -> bool:
        """The engine is down, which every new image needs."""
        return self._engine.is_open or self.engine_lost is not None

    @property
    def queued(self) -> ReadyQueue[J]:
        """Jobs that wait only for others to be prepared."""
        return self._ready

    @property
    def has_retries(self) -> bool:
        """Jobs wait for another attempt to fetch their image."""
        return self._fetches.next_due() is not None

    @property
    def in_progress(self) -> int:
        """Images that are being prepared, batched or scored."""
        return self._preparing + len(self._batcher) + self._images_running

    def held(self) -> Iterator[J]:
        """Jobs that wait for a store that is down."""
        return self._fetches.held()

    def stores_down(self) -> list[Store]:
        """Image stores that do not answer or refuse everything, for which jobs wait."""
        return self._fetches.stores_down()

    def wait_seconds(self, now: float, longest: float) -> float:
        """How long nothing needs to be started, unless something is reported or submitted."""
        due = self._fetches.next_due()
        moments = [] if due is None else [due]
        if self._engine.is_open:
            moments += [] if self._checking else [self._engine.retry_at()]
        elif len(self._batcher) and self._batches_running < self._options.batches_in_flight:
            moments.append(self._batcher.due_at())
        return max(0.0, min([longest, *(moment - now for moment in moments)]))

    def health_problems(self, now: float) -> tuple[str, ...]:
        """What keeps images from being judged until a person acts; empty when nothing does. From any thread."""
        lost = f"the engine is lost to this process: {self.engine_lost}" if self.engine_lost is not None else None
        engine = lost or self._engine.health_problem(now)
        refusing = [store for store in self._fetches.stores_down() if store.refuses_all]
        return (*([engine] if engine else []), *troubles(refusing, now))

    def store_outages(self, now: float) -> tuple[str, ...]:
        """Stores that do not answer, which passes by itself. From any thread."""
        return troubles([store for store in self._fetches.stores_down() if not store.refuses_all], now)

    # -- known scores ----------------------------------------------------------------------------------------------

    def _deliver_with_features(self, lacking: Sequence[tuple[J, Judgement]]) -> list[J]:
        unknown: list[J] = []
        found = self._parts.cache.features([self._key(job) for job, _ in lacking])
        for (job, judgement), features in zip(lacking, found, strict=True):
            if features is None:
                unknown.append(job)
            else:
                self._deliver(job, judgement._replace(features=features))
        return unknown

    def _key(self, job: J) -> ScoreKey:
        return self._parts.cache.key(job.content_hash or "", job.event.prompt)

    # -- fetching and decoding -------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """Hands jobs to the threads that fetch and decode, as many as the pipeline takes without piling up pixels."""
        window = self._options.window
        started: list[J] = []
        while self._ready and self.in_progress < window:
            if self.engine_lost is not None or not self._in_flight.has_room_for(self._ready.first()):
                break
            job = self._ready.pop()
            if not self._is_wanted(job):
                continue
            admitted = self._fetches.admit(job, now)
            if isinstance(admitted, GivenUp | Deferred):
                self._let_go(job, admitted)
            elif admitted is Admitted.NOW:
                self._preparing += 1
                self._in_flight.add(job)
                started.append(job)
        self._in_flight.begin(started, islice(self._ready, window))
        self.begun += len(started)
        for job in started:
            self._parts.prepare_pool.submit(self._prepare, job)

    def _prepare(self, job: J) -> None:
        """On a thread of the pool."""
        try:
            outcome = self._parts.preparer.prepare(job, self._flights)
        except Exception as error:  # noqa: BLE001  # every job must report back
            failure = error
            self.mailbox.post(lambda: self._on_prepare_failed(job, failure))
        else:
            self.mailbox.post(lambda: self._on_prepared(job, outcome))

    def _on_prepared(self, job: J, outcome: Prepared[J] | Known[J] | Duplicate[J]) -> None:
        self._preparing -= 1
        now = self._parts.clock()
        self._parts.metrics.stage_seconds.labels("fetch").observe(job.fetch_ms / 1000)
        self._fetches.answered(job, now)
        if isinstance(outcome, Prepared):
            self._parts.metrics.stage_seconds.labels("decode").observe(job.decode_ms / 1000)
            if not self._stopped:
                self._batcher.add(outcome, now)
                return
        self._in_flight.remove(job)
        if isinstance(outcome, Known):
            self._land(job, outcome.score, cached=True)

    def _on_prepare_failed(self, job: J, error: Exception) -> None:
        self._preparing -= 1
        self._in_flight.remove(job)
        if self._stopped:
            return
        now = self._parts.clock()
        outcome: GivenUp | Deferred | None
        if isinstance(error, TransientFetchError):
            self._parts.metrics.retries.labels("fetch").inc()
            outcome = self._fetches.failed(job, error, now)
        elif isinstance(error, DecoderUnavailableError):
            self._parts.metrics.retries.labels("decoder").inc()
            outcome = self._fetches.without_decoder(job, error, now)
        elif isinstance(error, ImageError) and error.reason is FailureReason.ACCESS_DENIED:
            outcome = self._fetches.denied(job, error, now)
        elif isinstance(error, ImageError):
            if error.reason is not FailureReason.REFERENCE_REFUSED:  # for that nobody was asked
                self._fetches.answered(job, now)
            failure = Failure(reason=error.reason, message=str(error), attempts=job.attempts + 1)
            outcome = GivenUp(failure, retriable=False)
        else:
            log.error("prepare_failed", event_id=job.event.id, exc_info=error)
            message = f"{type(error).__name__} while preparing the image"
            outcome = GivenUp(Failure(reason=FailureReason.INTERNAL_ERROR, message=message), retriable=False)
        if outcome is None:
            self._in_flight.waits(job)
        else:
            self._let_go(job, outcome)

    # -- the engine ------------------------------------------------------------------------------------------------

    def _start_batches(self, now: float, *, more_follows: bool) -> None:
        if self.engine_lost is not None:
            return
        if self._engine.is_open:
            self._check_engine(now)
            if not self._options.waits_for_outages:
                self._fail_all_waiting()
            return
        while len(self._batcher) and self._batches_running < self._options.batches_in_flight:
            nothing_follows = not (more_follows or self._preparing or self._ready)
            batch = self._batcher.next_batch(now, hurry=nothing_follows or self._in_flight.is_alone)
            if batch is None:
                return
            self._batches_running += 1
            self._images_running += len(batch)
            self._parts.batches.start(batch, lambda result: self.mailbox.post(lambda: self._on_batch(result)))

    def _check_engine(self, now: float) -> None:
        """Sends a blank image, no event's: the next image in the queue may be what the engine failed on."""
        if not self._checking and self._engine.may_check(now):
            self._checking = True
            self._parts.batches.check(lambda failure: self.mailbox.post(lambda: self._on_checked(failure)))

    def _on_checked(self, failure: Exception | None) -> None:
        self._checking = False
        now = self._parts.clock()
        if isinstance(failure, EngineLost):
            self._lose_engine(failure)
        elif failure is not None:
            self._engine.failed(failure, now)
        else:
            self._engine.succeeded(now)

    def _lose_engine(self, error: Exception) -> None:
        if self.engine_lost is None:
            log.error("engine_lost", error=described(error), note="only a new process can judge")
            self.engine_lost = EngineLost(str(error))

    def _on_batch(self, result: ScoredBatch[J] | FailedBatch[J]) -> None:
        self._batches_running -= 1
        self._images_running -= len(result.batch)
        now = self._parts.clock()
        if isinstance(result, FailedBatch):
            self._on_batch_failed(result, now)
            return
        self._engine.succeeded(now)
        for prepared, score in zip(result.batch, result.scores, strict=True):
            prepared.job.engine_ms = round(result.milliseconds, 3)
            self._in_flight.remove(prepared.job)
            self._land(prepared.job, score, cached=False)

    def _on_batch_failed(self, result: FailedBatch[J], now: float) -> None:
        error = described(result.error)
        size = len(result.batch)
        log.warning("batch_failed", size=size, fault=result.fault.value, error=error)
        self._parts.metrics.retries.labels("engine").inc(size)
        if result.fault is Fault.LOST:
            self._lose_engine(result.error)
            return
        died = result.fault is Fault.ENGINE and not self._engine.is_open
        if result.fault is Fault.ENGINE:
            self._engine.failed(result.error, now)
        for prepared in result.batch:
            job = prepared.job
            job.engine_failures += result.fault is Fault.BATCH
            job.engine_deaths += died
            if is_to_blame(job, size):
                self._let_go(job, engine_failure(f"the engine fails on this image: {error}", job, retriable=False))
            elif result.fault is Fault.ENGINE and not self._options.waits_for_outages:
                self._let_go(job, engine_failure(f"the engine does not answer: {error}", job, retriable=True))
            elif self._stopped:
                self._in_flight.remove(job)
            else:
                self._batcher.add(prepared, now)

    def _fail_all_waiting(self) -> None:
        """The engine is down, and nobody may wait for it."""
        for prepared in self._batcher.clear():
            message = f"the engine does not answer: {self._engine.error}"
            self._let_go(prepared.job, engine_failure(message, prepared.job, retriable=True))

    # -- outcomes --------------------------------------------------------------------------------------------------

    def _land(self, job: J, score: CachedScore, *, cached: bool) -> None:
        """Judges a job and those that waited for the same image."""
        self._judge(job, score, cached=cached)
        for duplicate in self._end_flight(job):
            self._judge(duplicate, score, cached=True)

    def _judge(self, job: J, score: CachedScore, *, cached: bool) -> None:
        if self._is_wanted(job):
            self._deliver(job, self._parts.router.judge_job(job, score, cached=cached))

    def _let_go(self, job: J, outcome: GivenUp | Deferred) -> None:
        """Fails or defers a job; those that waited for it try for themselves."""
        self._in_flight.remove(job)
        if not self._stopped:
            self._ready.extend(self._end_flight(job))
        if not self._is_wanted(job):
            return
        if isinstance(outcome, Deferred):
            self._defer(job, outcome.reason)
        else:
            self._deliver(job, self._parts.router.fail(job.event, outcome.failure, retriable=outcome.retriable))

    def _end_flight(self, job: J) -> list[J]:
        if job.content_hash is None:
            return []
        return self._flights.land(self._key(job), job)
