"""The intake loop: one member of the consumer group, from poll to commit."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from worker.intake.admission import Admission
from worker.intake.commit_cycle import CommitCycle
from worker.intake.committer import CommitOutcome, Committer
from worker.intake.completion import Completion
from worker.intake.crash_guard import CrashGuard
from worker.intake.crash_markers import MarkerStore
from worker.intake.delayed import DelayedJobs
from worker.intake.fair_shares import FairShares, LaneChooser
from worker.intake.gauges import MemberGauges
from worker.intake.ledger import OffsetLedger
from worker.intake.log import Fenced, Log, Output, Partition, Poll
from worker.intake.pressure import Bounds, partitions_to_pause
from worker.intake.retry_topics import RetryTopics
from worker.intake.stream_options import stream_options
from worker.intake.surplus_backlog import SurplusBacklog
from worker.intake.tenant_memory import TenantMemory
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import RecordJob
from worker.judging.mailbox import Mailbox
from worker.judging.parts import PipelineParts
from worker.judging.pipeline import JudgingPipeline
from worker.settings import FairnessSettings, IntakeSettings, TopicSettings

if TYPE_CHECKING:
    from worker.intake.event_traces import EventTraces

logger = structlog.get_logger(__name__)

IDLE_POLL_SECONDS = 0.1
BUSY_WAIT_SECONDS = 0.005
FULL_WAIT_SECONDS = 0.05


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
    fairness: FairnessSettings
    topics: TopicSettings
    tenants: TenantMemory
    traces: "EventTraces | None" = None
    """None where nothing is traced."""
    wall_clock: Callable[[], float] = time.time


class Member:
    """Reads records and sees that each ends in a verdict, exactly once, in order of its partition.

    Everything here happens on the thread that calls `run`. Fetching, inference and commits happen on other threads and
    report back through the mailbox. Nothing in the loop waits long, so the log is polled all the time.
    """

    def __init__(self, log: Log, parts: Parts) -> None:
        settings = parts.settings
        self.has_committed = False
        """Verdicts of this member are in the log."""
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
        self._wall_clock = parts.wall_clock
        self._traces = parts.traces
        self._retry_topics = RetryTopics(parts.topics.retry, settings, max_event_bytes=parts.max_event_bytes)
        for topic in parts.topics.deferred:
            self._metrics.events_deferred.labels(topic)  # so that a rate over it is 0 and not absent
        self._delayed = DelayedJobs(self._is_ours)
        self._surplus = SurplusBacklog()
        self._completion = Completion(self._ledger, parts.writer, self._metrics)
        self._mailbox = Mailbox()
        self._guard = CrashGuard(parts.markers, parts.process, self._clock, parts.wall_clock)
        self._admission = Admission(
            self._ledger,
            self._completion,
            parts.writer,
            self._router,
            self._guard,
            self._delayed,
            self._surplus,
            self._retry_topics,
            self._metrics,
            deferred_topics=parts.topics.deferred,
            surplus_topics=parts.topics.surplus_topics,
            lane_of=LaneChooser(parts.fairness, parts.topics).lane,
            max_event_bytes=parts.max_event_bytes,
            wall_clock=parts.wall_clock,
            traces=parts.traces,
        )
        options = stream_options(settings, parts.fairness)
        self._pipeline: JudgingPipeline[RecordJob] = JudgingPipeline(
            parts.judging,
            options,
            deliver=self._completion.judge,
            defer=self._retry_later,
            is_wanted=self._is_ours,
            take_on=self._take_on,
            mailbox=self._mailbox,
            watch=self._guard,
        )
        self._fair_shares = FairShares(
            parts.fairness,
            parts.topics,
            self._pipeline,
            self._completion,
            self._surplus,
            parts.tenants,
            self._metrics,
            window=options.window,
        )
        self._gauges = MemberGauges(
            log,
            self._ledger,
            self._pipeline,
            self._delayed,
            self._surplus,
            self._metrics,
            stall_seconds=settings.stall_seconds,
        )
        self._commits = CommitCycle(
            Committer(
                log,
                lambda outcome: self._mailbox.post(lambda: self._on_commit(outcome)),
                packed_topics=parts.topics.surplus_topics,
            ),
            self._ledger,
            options.retries,
            settings,
            self._metrics,
            parts.judging.rng,
        )
        self._draining: dict[Partition, float] = {}
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
        found = [*self._gauges.health_problems(now)]
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
        self._pipeline.submit(self._delayed.pop_due(now))
        if self._stop_at is None and (due := self._fair_shares.due_surplus()):
            self._pipeline.submit(self._admission.take_up(due, now))
        self._pipeline.turn(now)
        self._guard.turn(now)
        self._fair_shares.turn(now, self._wall_clock())
        self._commits.turn(now, hurry=bool(self._draining) or self._stop_at is not None, not_due=len(self._delayed))
        self._release_drained(now)
        full = self._fair_shares.full(self._ledger.partitions)
        paused = self._pause(full)
        self._gauges.turn(now, paused, full)
        self._fair_shares.set_share(self._ledger.partitions, self._gauges.sizes)
        busy = self._pipeline.is_working or self._commits.busy
        poll = self._log.poll(0.0 if busy else IDLE_POLL_SECONDS)
        self._rebalance(poll)
        for gap in poll.gaps:
            self._metrics.records_lost.inc(gap.next - gap.first)
        if poll.records and self._stop_at is None:
            admitted = self._admission.admit(poll.records, self._clock())
            self._fair_shares.see(admitted)
            self._pipeline.submit(admitted)
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
        self._gauges.assigned(poll.assigned)

    def _release_drained(self, now: float) -> None:
        """Gives up revoked partitions once all that can be is committed, or their time is up."""
        if not self._draining or self._commits.busy:
            return
        waiting = self._gauges.waiting()
        done = {
            p
            for p, deadline in self._draining.items()
            if now >= deadline or (oldest := self._ledger.oldest_in(p)) is None or oldest in waiting
        }
        if done:
            self._forget(done)
            self._guard.released(done)
            self._log.release(done)

    def _forget(self, partitions: Iterable[Partition]) -> None:
        self._delayed.drop(partitions)
        self._surplus.drop(partitions)
        for partition in partitions:
            self._ledger.drop([partition])
            self._gauges.dropped(partition)
            self._draining.pop(partition, None)

    # -- records ---------------------------------------------------------------------------------------------------

    def _is_ours(self, job: RecordJob) -> bool:
        """Whether its partition is still assigned to this member."""
        return self._ledger.is_current(job.work.ticket)

    def _take_on(self, jobs: Sequence[RecordJob]) -> Sequence[RecordJob]:
        """The jobs to judge now; the others go to the topics for surplus events."""
        return self._fair_shares.take_on(jobs, self._clock(), self._wall_clock())

    def _retry_later(self, job: RecordJob, reason: str) -> None:
        """Moves the event to a retry topic."""
        self._completion.move(job, self._retry_topics.output(job, reason, self._clock(), self._wall_clock()))

    def _on_commit(self, outcome: CommitOutcome) -> None:
        if self._traces is not None:
            self._traces.committed(outcome)
        if self._commits.finish(outcome, self._clock()):
            self.has_committed = True
            self._gauges.committed(outcome.batch.offsets)

    def _pause(self, full: frozenset[Partition]) -> frozenset[Partition]:
        """Applies backpressure, and pauses what is `full`; returns what is paused."""
        halted = self._stop_at is not None or self._pipeline.is_halted
        paused = partitions_to_pause(self._ledger, self._delayed, self._bounds, halted=halted)
        paused |= full
        self._log.pause(paused)
        return paused


def _names(partitions: Iterable[Partition]) -> list[str]:
    return [f"{p.topic}/{p.number}" for p in sorted(partitions)]
