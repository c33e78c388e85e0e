"""The intake loop: one member of the consumer group, from poll to commit."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import structlog

from schemas import Failure
from worker.intake.admission import Admission
from worker.intake.commit_cycle import CommitCycle
from worker.intake.committer import CommitOutcome, Committer
from worker.intake.crash_guard import CrashGuard, MarkerStore
from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import Fenced, Lag, Log, LogError, Output, Partition, Poll, Record
from worker.intake.pressure import Bounds, partitions_to_pause
from worker.intake.verdicts import VerdictWriter
from worker.intake.watchdog import Watchdog
from worker.intake.work import RecordJob
from worker.judging.judgement import Judgement
from worker.judging.mailbox import Mailbox
from worker.judging.options import PipelineOptions
from worker.judging.parts import PipelineParts
from worker.judging.pipeline import JudgingPipeline
from worker.judging.retries import RetryPolicy
from worker.settings import IntakeSettings

logger = structlog.get_logger(__name__)

IDLE_POLL_SECONDS = 0.1
BUSY_WAIT_SECONDS = 0.005
FULL_WAIT_SECONDS = 0.05
GAUGE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Parts:
    """What every member of this process shares."""

    judging: PipelineParts[RecordJob]
    writer: VerdictWriter
    markers: MarkerStore
    process: str
    """Names this process, and no other."""
    max_event_bytes: int
    settings: IntakeSettings


class Member:
    """Reads records and sees that each ends in a verdict, exactly once, in order of its partition.

    Everything here happens on the thread that calls `run`. Fetching, inference and commits happen on other threads and
    report back through the mailbox. Nothing in the loop waits long, so the log is polled all the time.
    """

    def __init__(self, log: Log, parts: Parts) -> None:
        settings = parts.settings
        self._log = log
        self._router = parts.judging.router
        self._writer = parts.writer
        self._settings = settings
        self._metrics = parts.judging.metrics
        self._clock = parts.judging.clock
        self._ledger: OffsetLedger[Output] = OffsetLedger()
        self._bounds = Bounds(
            settings.max_records_in_flight, settings.max_bytes_in_flight, settings.max_records_per_partition
        )
        self._admission = Admission(self._metrics, max_event_bytes=parts.max_event_bytes)
        self._mailbox = Mailbox()
        self._guard = CrashGuard(parts.markers, parts.process, self._clock)
        options = stream_options(settings)
        self._pipeline: JudgingPipeline[RecordJob] = JudgingPipeline(
            parts.judging,
            options,
            deliver=self._finish,
            is_wanted=self._is_ours,
            mailbox=self._mailbox,
            watch=self._guard,
        )
        self._watchdog = Watchdog(settings.stall_seconds)
        self._commits = CommitCycle(
            Committer(log, lambda outcome: self._mailbox.post(lambda: self._on_commit(outcome))),
            self._ledger,
            options.retries,
            settings,
            self._metrics,
            parts.judging.rng,
        )
        self._settled: dict[Partition, int] = {}
        self._draining: dict[Partition, float] = {}
        self._paused: frozenset[Partition] = frozenset()
        self._gauges_due = 0.0
        self._turned_at = self._clock()
        self._stop_at: float | None = None

    # -- life ------------------------------------------------------------------------------------------------------

    def run(self, stopping: Callable[[], bool]) -> None:
        """Works until `stopping`, then finishes what is with the engine, commits it and leaves the group; everything
        else is another member's to judge.

        Raises EngineLost when only a new process can judge, after what was finished is committed. Raises LogError
        (Fenced among them) when this member cannot go on; all uncommitted work is then another's.
        """
        try:
            while not self._is_over(stopping()):
                self._turn()
        finally:
            self._writer.flush()
            self._commits.close()
            if self._pipeline.engine_lost is None:  # an image that the engine had may be the cause
                self._guard.released_all()
            self._log.close()
        self._pipeline.check()

    def health_problems(self) -> tuple[str, ...]:
        """What keeps this member from its work; empty when nothing does. Called from any thread."""
        now = self._clock()
        found = [
            f"partition {p.topic}/{p.number} is behind and has not moved for {self._settings.stall_seconds:g} s"
            for p in sorted(self._watchdog.stalled(now))
        ]
        if (problem := self._commits.health_problem(now)) is not None:
            found.append(problem)
        if now - self._turned_at > self._settings.stall_seconds:
            found.append(f"the intake loop has not turned for {now - self._turned_at:.0f} s")
        return (*self._log.health_problems(), *self._pipeline.health_problems(now), *found)

    def log_notes(self) -> tuple[str, ...]:
        """What keeps records back, which is no fault of this member's. Called from any thread."""
        return self._log.notes()

    def store_outages(self) -> tuple[str, ...]:
        """Image stores that do not answer; their events wait. Called from any thread."""
        return self._pipeline.store_outages(self._clock())

    def _is_over(self, stopping: bool) -> bool:
        if not (stopping or self._pipeline.engine_lost is not None):
            return False
        now = self._clock()
        if self._stop_at is None:
            self._stop_at = now + self._settings.drain_seconds
            logger.info("intake_draining", records=self._ledger.held, deadline_seconds=self._settings.drain_seconds)
            self._pipeline.stop()
        is_drained = not (self._pipeline.is_inferring or self._commits.busy or self._ledger.take(1))
        return is_drained or now >= self._stop_at

    def _turn(self) -> None:
        now = self._turned_at = self._clock()
        self._metrics.loop_turned()
        self._writer.flush()
        self._router.refresh()
        self._pipeline.turn(now)
        self._commits.turn(now, hurry=bool(self._draining) or self._stop_at is not None)
        self._release_drained(now)
        self._pause()
        self._set_gauges(now)
        busy = self._pipeline.is_working or self._commits.busy
        poll = self._log.poll(0.0 if busy else IDLE_POLL_SECONDS)
        self._rebalance(poll)
        for gap in poll.gaps:
            self._metrics.records_lost.inc(gap.next - gap.first)
        self._admit(poll.records)
        self._mailbox.read(self._wait_seconds() if busy and not poll.records else 0.0)

    def _wait_seconds(self) -> float:
        """How long to wait for what is under way. Where the pipeline is full, a new record would only wait, too."""
        return FULL_WAIT_SECONDS if self._pipeline.queued else BUSY_WAIT_SECONDS

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
        self._guard.lost(poll.lost)
        self._guard.assigned(poll.assigned)
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
            self._guard.released(done)
            self._log.release(done)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        for partition in partitions:
            self._ledger.drop([partition])
            self._settled.pop(partition, None)
            self._draining.pop(partition, None)

    # -- records ---------------------------------------------------------------------------------------------------

    def _admit(self, records: Sequence[Record]) -> None:
        if not records or self._stop_at is not None:
            return
        self._metrics.records_polled.inc(len(records))
        now = self._clock()
        jobs: list[RecordJob] = []
        for record in records:
            try:
                ticket = self._ledger.receive(
                    record.partition, record.offset, len(record.value or b""), record.timestamp_ms
                )
            except ValueError as error:  # the log was truncated or reset under us
                raise LogError(f"the log does not go on where it was: {error}") from error
            opened = self._admission.open(record, ticket, now)
            if isinstance(opened, Failure):
                self._close(ticket, self._writer.malformed(record, opened))
            elif not opened:
                self._close(ticket, ())
            else:
                jobs.extend(opened)
        if self._guard.suspects_any:
            jobs = [job for job in jobs if self._may_be_judged(job)]
        self._pipeline.submit(jobs)

    def _may_be_judged(self, job: RecordJob) -> bool:
        """Whether the event did not kill the process before; one that may have is judged alone."""
        failure = self._guard.failure_of(job)
        if failure is not None:
            self._finish(job, self._router.fail(job.event, failure))
            return False
        job.is_alone = self._guard.must_be_alone(job)
        return True

    def _is_ours(self, job: RecordJob) -> bool:
        """Whether its partition is still assigned to this member."""
        return self._ledger.is_current(job.work.ticket)

    def _finish(self, job: RecordJob, judgement: Judgement) -> None:
        work = job.work
        outputs = work.outputs[job.index] = self._writer.write(job, judgement)
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

    # -- backpressure and gauges -----------------------------------------------------------------------------------

    def _pause(self) -> None:
        halted = self._stop_at is not None or self._pipeline.is_halted
        self._paused = partitions_to_pause(self._ledger, self._bounds, halted=halted)
        self._log.pause(self._paused)

    def _set_gauges(self, now: float) -> None:
        if now < self._gauges_due:
            return
        self._gauges_due = now + GAUGE_SECONDS
        lag = self._log.lag()
        metrics = self._metrics
        metrics.set_lag({(p.topic, p.number): self._uncommitted(p, lag) for p in lag.by_partition})
        metrics.set_oldest(self._ledger.oldest_timestamp_ms())
        metrics.records_in_flight.set(self._ledger.held)
        metrics.bytes_in_flight.set(self._ledger.held_bytes)
        metrics.partitions_paused.set(len(self._paused))
        metrics.breaker_open.set(self._pipeline.is_halted or self._pipeline.has_store_outage)
        self._watchdog.observe(self._settled, self._behind(lag), now)

    def _uncommitted(self, partition: Partition, lag: Lag) -> int:
        """Records from the committed offset to the end."""
        oldest, end = self._ledger.oldest_in(partition), lag.ends.get(partition)
        if oldest is None or end is None:
            return lag.by_partition[partition] + self._ledger.held_in(partition)
        return max(0, end - oldest.offset)

    def _behind(self, lag: Lag) -> frozenset[Partition]:
        """Partitions with work to do that is theirs to do now.

        Not those whose oldest record waits until others' have been dispatched, or for a store that is down, which the
        store's own health problem reports; nor those not read because enough is under way: a long backlog is no fault.
        """
        queued = Counter(job.work for job in self._pipeline.queued)
        waiting = {work.ticket for work, jobs in queued.items() if jobs == work.remaining}
        waiting.update(job.work.ticket for job in self._pipeline.held())
        return frozenset(
            p
            for p in self._settled
            if (oldest := self._ledger.oldest_in(p)) not in waiting
            and (oldest is not None or (lag.by_partition.get(p) and p not in self._paused and p not in lag.held))
        )


def stream_options(settings: IntakeSettings) -> PipelineOptions:
    """A stream waits for what is down, and its review items carry features."""
    return PipelineOptions(
        batch_size=settings.batch_size,
        batch_wait_seconds=settings.batch_wait_seconds,
        batches_in_flight=settings.batches_in_flight,
        prepare_threads=settings.prepare_threads,
        retries=RetryPolicy(
            settings.max_attempts,
            settings.retry_base_seconds,
            settings.retry_max_seconds,
            settings.retry_deadline_seconds,
        ),
        store_outage_seconds=settings.outage_seconds,
        engine_outage_seconds=settings.engine_outage_seconds,
        wants_features=True,
    )


def _names(partitions: Iterable[Partition]) -> list[str]:
    return [f"{p.topic}/{p.number}" for p in sorted(partitions)]
