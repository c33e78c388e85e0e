"""The intake loop: one member of the consumer group, from poll to commit."""

import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from queue import Empty, SimpleQueue

import structlog

from schemas import Failure, FailureReason, Scores
from worker.cache.score_cache import CachedScore, ScoreCache
from worker.images.errors import ImageError, TransientFetchError
from worker.intake.admission import Admission
from worker.intake.commit_cycle import CommitCycle
from worker.intake.committer import CommitOutcome, Committer
from worker.intake.judge import Judge, Ruling
from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import Fenced, Log, LogError, Output, Partition, Poll, Record
from worker.intake.pressure import Bounds, partitions_to_pause
from worker.intake.watchdog import Watchdog
from worker.intake.work import RecordJob
from worker.judging.batch_runner import BatchRunner, FailedBatch, ScoredBatch
from worker.judging.batcher import Batcher
from worker.judging.breaker import Breaker
from worker.judging.fetch_retries import FetchRetries
from worker.judging.prepare import Duplicate, Known, Prepared, Preparer
from worker.judging.retries import RetryPolicy
from worker.judging.single_flight import SingleFlight
from worker.settings import IntakeSettings
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)

IDLE_POLL_SECONDS = 0.1
BUSY_WAIT_SECONDS = 0.005
FULL_WAIT_SECONDS = 0.05
GAUGE_SECONDS = 0.5
ENGINE_FAILURES_TO_BLAME = 2


@dataclass(frozen=True, slots=True)
class Parts:
    """What every member of this process shares. `clock` is monotonic, in seconds."""

    preparer: Preparer[RecordJob]
    batch_runner: BatchRunner[RecordJob]
    judge: Judge
    cache: ScoreCache
    metrics: Metrics
    prepare_pool: Executor
    prepare_threads: int
    max_event_bytes: int
    settings: IntakeSettings
    clock: Callable[[], float]
    rng: random.Random


class Member:
    """Reads records and sees that each ends in a verdict, exactly once, in order of its partition.

    Everything here happens on the thread that calls `run`, but for fetching, inference and commits, which report back
    through an inbox. Nothing in the loop waits long, so the log is polled all the time.
    """

    def __init__(self, log: Log, parts: Parts) -> None:
        settings = parts.settings
        self._log = log
        self._parts = parts
        self._settings = settings
        self._metrics = parts.metrics
        self._clock = parts.clock
        self._ledger: OffsetLedger[Output] = OffsetLedger()
        self._bounds = Bounds(
            settings.max_records_in_flight, settings.max_bytes_in_flight, settings.max_records_per_partition
        )
        patience = RetryPolicy(
            settings.max_attempts,
            settings.retry_base_seconds,
            settings.retry_max_seconds,
            settings.retry_deadline_seconds,
        )
        self._fetches: FetchRetries[RecordJob] = FetchRetries(
            patience, Breaker(), parts.rng, outage_seconds=settings.outage_seconds
        )
        self._admission = Admission(parts.cache, parts.metrics, max_event_bytes=parts.max_event_bytes)
        self._inbox: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._flights: SingleFlight[RecordJob] = SingleFlight()
        self._ready: deque[RecordJob] = deque()
        self._batcher: Batcher[RecordJob] = Batcher(settings.batch_size, settings.batch_wait_seconds)
        self._engine_breaker = Breaker()
        self._watchdog = Watchdog(settings.stall_seconds)
        self._commits = CommitCycle(
            Committer(log, lambda outcome: self._inbox.put(lambda: self._on_commit(outcome))),
            self._ledger,
            patience,
            settings,
            self._metrics,
            parts.rng,
        )
        self._settled: dict[Partition, int] = {}
        self._draining: dict[Partition, float] = {}
        self._preparing = 0
        self._batches_running = 0
        self._images_running = 0
        self._window = 2 * parts.prepare_threads + settings.batch_size * (settings.batches_in_flight + 1)
        self._paused: frozenset[Partition] = frozenset()
        self._gauges_due = 0.0
        self._turned_at = parts.clock()
        self._stop_at: float | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until `stopping`, then drains within the deadline and leaves the group.

        Raises LogError (Fenced among them) when this member cannot go on; all uncommitted work is then another's.
        """
        try:
            while not self._is_over(stopping()):
                self._turn()
        finally:
            self._parts.judge.turn()
            self._commits.close()
            self._log.close()

    def ailments(self) -> tuple[str, ...]:
        """What is wrong at the moment, for the health check; empty when all is well. Called from any thread."""
        now = self._clock()
        found = [
            f"partition {p.topic}/{p.number} is behind and has not moved for {self._settings.stall_seconds:g} s"
            for p in sorted(self._watchdog.stalled(now))
        ]
        if now - self._turned_at > self._settings.stall_seconds:
            found.append(f"the intake loop has not turned for {now - self._turned_at:.0f} s")
        return tuple(found)

    def _is_over(self, stopping: bool) -> bool:
        if not stopping:
            return False
        now = self._clock()
        if self._stop_at is None:
            self._stop_at = now + self._settings.drain_seconds
            logger.info("intake_draining", records=self._ledger.held, deadline_seconds=self._settings.drain_seconds)
        return (self._ledger.held == 0 and not self._commits.busy) or now >= self._stop_at

    def _turn(self) -> None:
        now = self._turned_at = self._clock()
        self._metrics.loop_turned()
        self._parts.judge.turn()
        self._ready.extend(self._fetches.due(now))
        self._dispatch(now)
        self._start_batches(now)
        self._commits.turn(now, hurry=bool(self._draining) or self._stop_at is not None)
        self._release_drained(now)
        self._relieve_pressure()
        self._set_gauges(now)
        busy = self._preparing or self._batches_running or len(self._batcher) or self._commits.busy
        poll = self._log.poll(0.0 if busy else IDLE_POLL_SECONDS)
        self._rebalance(poll)
        self._admit(poll.records)
        self._read_inbox(self._wait_seconds() if busy and not poll.records else 0.0)

    def _wait_seconds(self) -> float:
        """How long to wait for what is under way. Where the pipeline is full, a new record would only wait, too."""
        return FULL_WAIT_SECONDS if self._ready else BUSY_WAIT_SECONDS

    def _read_inbox(self, wait_seconds: float) -> None:
        try:
            message = self._inbox.get(timeout=wait_seconds) if wait_seconds else self._inbox.get_nowait()
            while True:
                message()
                message = self._inbox.get_nowait()
        except Empty:
            return

    # -- assignment ------------------------------------------------------------------------------------------------

    def _rebalance(self, poll: Poll) -> None:
        if not (poll.lost or poll.revoked or poll.assigned):
            return
        self._metrics.rebalances.inc()
        logger.info("rebalance", assigned=_names(poll.assigned), revoked=_names(poll.revoked), lost=_names(poll.lost))
        if poll.lost and self._commits.busy:
            # The commit may not have begun, and must not pass for work of the member that joins next.
            raise Fenced("the group gave this member's partitions to others during a commit")
        self._forget(poll.lost)
        deadline = self._clock() + self._settings.rebalance_seconds
        self._draining.update(dict.fromkeys(poll.revoked, deadline))
        self._ledger.assign(poll.assigned)
        self._settled.update(dict.fromkeys(poll.assigned, 0))

    def _release_drained(self, now: float) -> None:
        """Gives up revoked partitions once all they hold is committed, or their time is up."""
        if not self._draining or self._commits.busy:
            return
        done = {p for p, deadline in self._draining.items() if now >= deadline or not self._ledger.held_in(p)}
        if done:
            self._forget(done)
            self._log.release(done)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._ledger.drop([partition])
            self._settled.pop(partition, None)
            self._draining.pop(partition, None)

    # -- admission -------------------------------------------------------------------------------------------------

    def _admit(self, records: Sequence[Record]) -> None:
        if not records:
            return
        self._metrics.records_polled.inc(len(records))
        now = self._clock()
        jobs: list[RecordJob] = []
        for record in records:
            try:
                ticket = self._ledger.receive(record.partition, record.offset, len(record.value or b""))
            except ValueError as error:  # the log was truncated or reset under us
                raise LogError(f"the log does not go on where it was: {error}") from error
            opened = self._admission.open(record, ticket, now)
            if isinstance(opened, Failure):
                self._close(ticket, self._parts.judge.malformed(record, opened))
            elif not opened:
                self._close(ticket, ())
            else:
                jobs.extend(opened)
        known, unknown = self._admission.look_up(jobs)
        self._ready.extend(unknown)
        self._finish_known(known)

    def _finish_known(self, known: Sequence[tuple[RecordJob, Scores]]) -> None:
        """Finishes jobs that were scored before; only what goes to review is asked for its features."""
        judge = self._parts.judge
        for_review: list[tuple[RecordJob, Ruling]] = []
        for job, scores in known:
            ruling = judge.rule(job, scores)
            if ruling.needs_features:
                for_review.append((job, ruling))
            else:
                self._finish(job, judge.write(job, ruling, {}, cached=True))
        features = self._admission.features([job for job, _ in for_review])
        for (job, ruling), found in zip(for_review, features, strict=True):
            if found is None:
                self._ready.append(job)
            else:
                self._finish(job, judge.write(job, ruling, found, cached=True))

    # -- preparation -----------------------------------------------------------------------------------------------

    def _dispatch(self, now: float) -> None:
        """Hands jobs to the threads that fetch and decode, as many as the pipeline takes without piling up pixels."""
        while self._ready and self._preparing + len(self._batcher) + self._images_running < self._window:
            job = self._ready.popleft()
            if not self._ledger.is_current(job.work.ticket):
                continue
            if not self._fetches.admit(job, now):
                continue
            self._preparing += 1
            self._parts.prepare_pool.submit(self._prepare, job)

    def _prepare(self, job: RecordJob) -> None:
        """On a thread of the pool."""
        try:
            outcome = self._parts.preparer.prepare(job, self._flights)
        except Exception as error:  # noqa: BLE001  # every job must report back
            failure = error
            self._inbox.put(lambda: self._on_prepare_failed(job, failure))
        else:
            self._inbox.put(lambda: self._on_prepared(job, outcome))

    def _on_prepared(
        self, job: RecordJob, outcome: Prepared[RecordJob] | Known[RecordJob] | Duplicate[RecordJob]
    ) -> None:
        self._preparing -= 1
        now = self._clock()
        self._metrics.stage_seconds.labels("fetch").observe(job.fetch_ms / 1000)
        self._fetches.fetched(job, now)
        if isinstance(outcome, Known):
            self._land(job, outcome.score, cached=True)
        elif isinstance(outcome, Prepared):
            self._metrics.stage_seconds.labels("decode").observe(job.decode_ms / 1000)
            self._batcher.add(outcome, now)

    def _on_prepare_failed(self, job: RecordJob, error: Exception) -> None:
        self._preparing -= 1
        now = self._clock()
        failure: Failure | None
        if isinstance(error, TransientFetchError):
            self._metrics.retries.labels("fetch").inc()
            failure = self._fetches.failed(job, error, now)
        elif isinstance(error, ImageError):
            failure = Failure(reason=error.reason, message=str(error), attempts=job.attempts + 1)
        else:
            logger.error("prepare_failed", event_id=job.event.id, exc_info=error)
            failure = Failure(
                reason=FailureReason.INTERNAL_ERROR, message=f"{type(error).__name__} while preparing the image"
            )
        if failure is not None:
            self._give_up(job, failure)

    # -- the engine ------------------------------------------------------------------------------------------------

    def _start_batches(self, now: float) -> None:
        while len(self._batcher) and self._batches_running < self._settings.batches_in_flight:
            probing = self._engine_breaker.is_open
            if not self._engine_breaker.allow(now):
                return
            nothing_follows = not self._preparing and not self._ready
            batch = self._batcher.next_batch(now, hurry=probing or nothing_follows)
            if batch is None:
                return
            self._batches_running += 1
            self._images_running += len(batch)
            self._parts.batch_runner.start(batch, lambda result: self._inbox.put(lambda: self._on_batch(result)))

    def _on_batch(self, result: ScoredBatch[RecordJob] | FailedBatch[RecordJob]) -> None:
        self._batches_running -= 1
        self._images_running -= len(result.batch)
        now = self._clock()
        if isinstance(result, ScoredBatch):
            self._engine_breaker.record(True, now)
            for prepared, score in zip(result.batch, result.scores, strict=True):
                prepared.job.engine_ms = round(result.milliseconds, 3)
                self._land(prepared.job, score, cached=False)
            return
        logger.warning(
            "batch_failed",
            size=len(result.batch),
            engine_is_healthy=result.engine_is_healthy,
            error=f"{type(result.error).__name__}: {result.error}",
        )
        self._metrics.retries.labels("engine").inc(len(result.batch))
        if not result.engine_is_healthy:
            self._engine_breaker.trip(now)
        for prepared in result.batch:
            job = prepared.job
            job.engine_failures += result.engine_is_healthy
            if job.engine_failures >= ENGINE_FAILURES_TO_BLAME and len(result.batch) == 1:
                message = f"the engine fails on this image: {type(result.error).__name__}: {result.error}"
                self._give_up(
                    job,
                    Failure(reason=FailureReason.ENGINE_FAILED, message=message[:1000], attempts=job.engine_failures),
                )
            else:
                self._batcher.add(prepared, now)

    # -- outcomes --------------------------------------------------------------------------------------------------

    def _land(self, job: RecordJob, score: CachedScore, *, cached: bool) -> None:
        """Finishes a job and those that waited for the same image."""
        self._finish_scored(job, score, cached=cached)
        for other in self._end_flight(job):
            self._finish_scored(other, score, cached=True)

    def _give_up(self, job: RecordJob, failure: Failure) -> None:
        """Fails a job; those that waited for it try for themselves."""
        self._ready.extend(self._end_flight(job))
        if self._ledger.is_current(job.work.ticket):
            self._finish(job, self._parts.judge.failed(job, failure))

    def _end_flight(self, job: RecordJob) -> list[RecordJob]:
        if job.content_hash is None:
            return []
        return self._flights.land(self._parts.cache.key(job.content_hash, job.event.prompt), job)

    def _finish_scored(self, job: RecordJob, score: CachedScore, *, cached: bool) -> None:
        if self._ledger.is_current(job.work.ticket):
            self._finish(job, self._parts.judge.scored(job, score, cached=cached))

    def _finish(self, job: RecordJob, outputs: tuple[Output, ...]) -> None:
        work = job.work
        work.outputs[job.index] = outputs
        work.remaining -= 1
        if not work.remaining:
            alone = len(work.outputs) == 1
            self._close(work.ticket, outputs if alone else tuple(itertools.chain.from_iterable(work.outputs)))

    def _close(self, ticket: Ticket, outputs: tuple[Output, ...]) -> None:
        size = 0
        for output in outputs:
            size += len(output.value)
        self._ledger.finish(ticket, outputs, size)

    def _on_commit(self, outcome: CommitOutcome) -> None:
        if self._commits.finish(outcome, self._clock()):
            self._settled.update((p, o) for p, o in outcome.batch.offsets.items() if p in self._settled)

    # -- pressure --------------------------------------------------------------------------------------------------

    def _relieve_pressure(self) -> None:
        halted = self._stop_at is not None or self._is_broken()
        self._paused = partitions_to_pause(self._ledger, self._bounds, halted=halted)
        self._log.pause(self._paused)

    def _is_broken(self) -> bool:
        """Something that all events need is down."""
        return self._fetches.store_is_down or self._engine_breaker.is_open

    def _set_gauges(self, now: float) -> None:
        if now < self._gauges_due:
            return
        self._gauges_due = now + GAUGE_SECONDS
        lag = self._log.lag().by_partition
        metrics = self._metrics
        metrics.set_lag({(p.topic, p.number): records for p, records in lag.items()})
        metrics.records_in_flight.set(self._ledger.held)
        metrics.bytes_in_flight.set(self._ledger.held_bytes)
        metrics.partitions_paused.set(len(self._paused))
        metrics.breaker_open.set(self._is_broken())
        # A restart would not mend a store that is down: that is the breaker's affair, not the watchdog's.
        behind = frozenset() if self._is_broken() else self._behind(lag)
        self._watchdog.observe(self._settled, behind, now)

    def _behind(self, lag: Mapping[Partition, int]) -> frozenset[Partition]:
        """Partitions with work to do that is theirs to do now.

        Not those whose records only wait until others' have been dispatched, nor those not read because enough is under
        way: a long backlog is no fault. Where all stands still, what was dispatched shows it.
        """
        queued = Counter(job.work for job in self._ready)
        waiting = {work.ticket for work, jobs in queued.items() if jobs == work.remaining}
        return frozenset(
            p
            for p in self._settled
            if (oldest := self._ledger.oldest_in(p)) not in waiting
            and (oldest is not None or (lag.get(p) and p not in self._paused))
        )


def _names(partitions: Iterable[Partition]) -> list[str]:
    return [f"{p.topic}/{p.number}" for p in sorted(partitions)]
