"""From records to the jobs they carry."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import structlog

from schemas import Failure, FailureReason, ImageEvent
from worker.intake.completion import Completion
from worker.intake.crash_guard import CrashGuard
from worker.intake.deferral import Deferral, read_deferral
from worker.intake.delayed import DelayedJobs
from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import LogError, Output, Record
from worker.intake.packs import unpack
from worker.intake.parse import MalformedRecord, parse
from worker.intake.retry_topics import RetryTopics
from worker.intake.surplus_backlog import MovedRecords, SurplusBacklog
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import PackWork, RecordJob, RecordWork
from worker.judging.lanes import Lane
from worker.judging.router import PolicyRouter
from worker.outbox import ROOM_FOR_OURS
from worker.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from worker.intake.event_traces import EventTraces

log = structlog.get_logger(__name__)


class Admission:
    """Takes in records as they are polled. For the member's thread.

    Each is opened in the ledger. A record without an event to judge is finished at once, an event that is not due goes
    to `delayed`, a record of a surplus topic to `surplus`, and all others are returned to be judged.
    """

    def __init__(
        self,
        ledger: OffsetLedger[Output],
        completion: Completion,
        writer: VerdictWriter,
        router: PolicyRouter,
        guard: CrashGuard,
        delayed: DelayedJobs,
        surplus: SurplusBacklog,
        retry_topics: RetryTopics,
        metrics: Metrics,
        *,
        deferred_topics: Collection[str],
        surplus_topics: Collection[str],
        lane_of: Callable[[ImageEvent, Record], Lane],
        max_event_bytes: int,
        wall_clock: Callable[[], float],
        traces: "EventTraces | None" = None,
    ) -> None:
        """`deferred_topics`: those where a record's headers say where its event first stood; the `surplus_topics` are
        among them."""
        self._ledger = ledger
        self._completion = completion
        self._writer = writer
        self._router = router
        self._guard = guard
        self._delayed = delayed
        self._surplus = surplus
        self._retry_topics = retry_topics
        self._metrics = metrics
        self._deferred_topics = frozenset(deferred_topics)
        self._surplus_topics = frozenset(surplus_topics)
        self._lane_of = lane_of
        self._max_event_bytes = max_event_bytes
        self._wall_clock = wall_clock
        self._traces = traces

    def admit(self, records: Sequence[Record], now: float) -> list[RecordJob]:
        """The events that can be judged now. Raises LogError when the log does not go on where it was."""
        self._metrics.records_polled.inc(len(records))
        works: list[RecordWork] = []
        for record in records:
            if record.partition.topic in self._surplus_topics:
                self._receive_surplus(record)
                continue
            deferral = read_deferral(record) if record.partition.topic in self._deferred_topics else None
            works.append(RecordWork(record, self._receive(record, deferral), [], 0, deferral))
        return self._open_all(works, now)

    def take_up(self, moved: Sequence[MovedRecords], now: float) -> list[RecordJob]:
        """The events of records that waited in `surplus`."""
        works: list[RecordWork] = []
        for ticket, written, count in moved:
            pack = PackWork([()] * count, count)
            works += [
                RecordWork(record, ticket, [], 0, read_deferral(record), pack, slot)
                for slot, record in enumerate(unpack(written))
            ]
        return self._open_all(works, now)

    def _open_all(self, works: Sequence[RecordWork], now: float) -> list[RecordJob]:
        wall = self._wall_clock()
        has_attempts, suspects_any = self._guard.has_attempts, self._guard.suspects_any
        admitted: list[RecordJob] = []
        for work in works:
            opened = self._open(work, now)
            if isinstance(opened, Failure):
                self._completion.close(work, self._writer.malformed(work, opened))
                continue
            if not opened:
                self._completion.close(work)
            if suspects_any:
                opened = [job for job in opened if self._may_be_judged(job)]
            deferral = work.deferral
            for job in opened if deferral is not None or has_attempts else ():
                self._restore(job, deferral, now, wall)
            if deferral is None or self._is_due(opened, deferral, now, wall):
                admitted.extend(opened)
        return admitted

    def _receive_surplus(self, record: Record) -> None:
        """A record of a surplus topic waits unopened: a pack may hold more events than there is room for."""
        try:
            records = unpack(record)
        except MalformedRecord as error:
            work = RecordWork(record, self._receive(record, None), [], 0)
            failure = Failure(reason=error.reason, message=str(error))
            self._completion.close(work, self._writer.malformed(work, failure))
        else:
            # The first of a pack is its oldest.
            ticket = self._receive(record, read_deferral(records[0]))
            self._surplus.push(MovedRecords(ticket, record, len(records)))

    def _receive(self, record: Record, deferral: Deferral | None) -> Ticket:
        """Opens the record in the ledger; one with an event that was moved is as old as that event."""
        timestamp_ms = record.timestamp_ms if deferral is None else deferral.first_seen_ms
        try:
            return self._ledger.receive(record.partition, record.offset, len(record.value or b""), timestamp_ms)
        except ValueError as error:  # the log was truncated or reset under us
            raise LogError(f"the log does not go on where it was: {error}") from error

    def _open(self, work: RecordWork, now: float) -> Sequence[RecordJob] | Failure:
        """One job an event; none for a record that only announces other things than new images."""
        record = work.record
        # In its canonical form an event may take some bytes more than in the record in which it came.
        room = ROOM_FOR_OURS if work.deferral is not None else 0
        try:
            parsed = parse(record, max_bytes=self._max_event_bytes + room)
        except MalformedRecord as error:
            return Failure(reason=error.reason, message=str(error))
        except Exception as error:  # a bug must not stop the stream
            log.exception("parse_failed", topic=record.partition.topic, offset=record.offset)
            message = f"{type(error).__name__} while reading the record"
            return Failure(reason=FailureReason.INTERNAL_ERROR, message=message)
        if parsed.ignored:
            self._metrics.events.labels("ignored").inc(parsed.ignored)
        work.remaining = len(parsed.events)
        work.outputs = [()] * work.remaining
        movable = self._retry_topics.take(record)
        jobs = [
            RecordJob(event, now, work, i, may_be_deferred=movable, lane=self._lane_of(event, record))
            for i, event in enumerate(parsed.events)
        ]
        if self._traces is not None:
            for job in jobs:
                job.trace = self._traces.begin(record, job.event)
        return jobs

    def _may_be_judged(self, job: RecordJob) -> bool:
        """Whether the event did not kill the process before; one that may have is judged alone."""
        failure = self._guard.failure_of(job)
        if failure is not None:
            self._completion.judge(job, self._router.fail(job.event, failure))
            return False
        job.is_alone = self._guard.must_be_alone(job)
        return True

    def _restore(self, job: RecordJob, deferral: Deferral | None, now: float, wall: float) -> None:
        """Gives an event what was tried before: as it was moved, and in this partition since."""
        if deferral is not None:
            self._retry_topics.restore(job, deferral, now, wall)
        self._guard.restore_attempts(job)

    def _is_due(self, jobs: Sequence[RecordJob], deferral: Deferral, now: float, wall: float) -> bool:
        """Whether events that were moved can be tried again now; if not, they come back from `delayed`."""
        seconds = self._retry_topics.wait_seconds(deferral, wall)
        if seconds > 0:
            self._delayed.push(now + seconds, jobs)
        return seconds <= 0
