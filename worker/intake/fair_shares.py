"""Fair shares at the log: which records are put off into a topic for surplus events, and which topics are read now."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Final

from schemas import ImageEvent
from worker.intake.completion import Completion
from worker.intake.deferral import Deferral, deferred_output, deferred_whole
from worker.intake.fairness import FairAdmission
from worker.intake.log import Output, Partition, Record
from worker.intake.retry_topics import MOST_MOVED_BYTES
from worker.intake.surplus_backlog import MovedRecords, SurplusBacklog
from worker.intake.tenant_memory import TenantMemory
from worker.intake.work import RecordJob, RecordWork
from worker.judging.lanes import Lane
from worker.judging.pipeline import JudgingPipeline
from worker.settings import FairnessSettings, TopicSettings
from worker.telemetry.metrics import Metrics

LANE_HEADER: Final = "sluice-lane"
_PRIORITY: Final = (LANE_HEADER, b"priority")
REASON: Final = "its tenant sent more than its share"


class LaneChooser:
    """The lane of an event: by its topic, and of a live one by its priority or a header of its record."""

    def __init__(self, settings: FairnessSettings, topics: TopicSettings) -> None:
        self._priority_from = settings.priority_from
        self._by_topic = {topics.surplus: Lane.SURPLUS, topics.surplus_long: Lane.SURPLUS_LONG}
        if topics.priority is not None:
            self._by_topic[topics.priority] = Lane.PRIORITY

    def lane(self, event: ImageEvent, record: Record) -> Lane:
        lane = self._by_topic.get(record.partition.topic, Lane.LIVE)
        if lane is Lane.LIVE and (event.priority >= self._priority_from or _PRIORITY in record.headers):
            return Lane.PRIORITY
        return lane


class FairShares:
    """Applies FairAdmission to one member's records. For its thread."""

    def __init__(
        self,
        settings: FairnessSettings,
        topics: TopicSettings,
        pipeline: JudgingPipeline[RecordJob],
        completion: Completion,
        surplus: SurplusBacklog,
        tenants: TenantMemory,
        metrics: Metrics,
        *,
        window: int,
    ) -> None:
        """`window`: events that the pipeline works on at once."""
        self._incoming = frozenset(topics.incoming)
        self._images = topics.images
        self._topics = {Lane.SURPLUS: topics.surplus, Lane.SURPLUS_LONG: topics.surplus_long}
        self._pipeline = pipeline
        self._completion = completion
        self._surplus = surplus
        self._tenants = tenants
        self._were_several = False
        self._metrics = metrics
        self._admission = FairAdmission(settings, window=window)
        self._sizes: Mapping[str, int] = {}
        self._share = settings.surplus_share
        self._window = window
        self._turned_at = 0.0
        self._allowance = 0.0
        """Surplus events that may be read now although live ones are being put off."""
        self._moved: Counter[str] = Counter()
        """Events put off since the last turn, by topic; a labelled instrument costs more than all else here."""

    def turn(self, now: float, wall: float) -> None:
        """Measures how fast the pipeline is. Called in each turn of the loop."""
        for topic, count in self._moved.items():
            self._metrics.events_deferred.labels(topic).inc(count)
        self._moved.clear()
        pipeline = self._pipeline
        # While fetches fail, the speed is that of the stores.
        is_saturated = bool(pipeline.queued) and not pipeline.has_retries
        self._admission.turn(pipeline.begun, is_saturated=is_saturated, now=now)
        per_second = self._share * self._admission.speed.per_second
        self._allowance = min(per_second, self._allowance + per_second * (now - self._turned_at))
        self._turned_at = now
        self._tenants.turn()
        if pipeline.is_idle:
            self._admission.forget_backlogs()
        if self._tenants.are_several and not self._were_several:
            # Another tenant has come: what was kept for want of others is now divided into shares.
            self._admission.forget_backlogs()
            waiting = list(pipeline.queued)
            pipeline.queued.clear()
            pipeline.queued.extend(self._take_on(waiting, now, wall, again=True))
        self._were_several = self._tenants.are_several

    def see(self, jobs: Sequence[RecordJob]) -> None:
        """Called with all events that are read, those whose scores are known among them."""
        if jobs:
            self._tenants.see({job.event.tenant for job in jobs})

    def set_share(self, assigned: Callable[[], Set[Partition]], sizes: Mapping[str, int]) -> None:
        """Tells which partitions are this member's, and how many each topic has: quotas are over all members. The same
        `sizes` are looked at once."""
        if sizes is self._sizes:
            return
        self._sizes = sizes
        total = sizes.get(self._images, 0)
        own = sum(partition.topic == self._images for partition in assigned())
        if own and total:
            self._admission.quotas.share = own / total

    def take_on(self, jobs: Sequence[RecordJob], now: float, wall: float) -> list[RecordJob]:
        """The jobs to judge now, of those whose scores are not known. The others' records are finished by moving their
        events. The jobs of a record follow one another."""
        return self._take_on(jobs, now, wall, again=False)

    def _take_on(self, jobs: Sequence[RecordJob], now: float, wall: float, *, again: bool) -> list[RecordJob]:
        judged_now: list[RecordJob] = []
        queued = self._pipeline.queued
        live = self._pipeline.in_progress + queued.waiting(Lane.PRIORITY) + queued.waiting(Lane.LIVE)
        for work, group in itertools.groupby(jobs, key=lambda job: job.work):
            of_record = tuple(group)
            lane = self._lane(work, of_record, live, now, again=again)
            if lane in self._topics and work.record.partition.topic in self._incoming:
                self._move(work, of_record, self._topics[lane], wall)
            else:
                if lane.is_surplus:
                    self._allowance -= len(of_record)
                live += len(of_record)
                judged_now += of_record
        return judged_now

    def due_surplus(self) -> list[MovedRecords]:
        """Moved records for whose events there is room now."""
        due: list[MovedRecords] = []
        for lane, topic in self._topics.items():
            if self._surplus.waiting(topic):
                due += self._surplus.pop(topic, self._room(lane))
        return due

    def full(self, assigned: Callable[[], Set[Partition]]) -> frozenset[Partition]:
        """Partitions of the surplus topics of which enough was read."""
        waiting, room = self._surplus.waiting, self._admission.room
        full = {topic for lane, topic in self._topics.items() if waiting(topic) >= room or self._room(lane) <= 0}
        return frozenset(p for p in assigned() if p.topic in full) if full else frozenset()

    def _room(self, lane: Lane) -> int:
        """How many more events of a surplus lane may be in the pipeline.

        While live events are put off, others may stand behind them, and a processor that judges surplus events would
        reach those later: there is then room only for the share of the surplus, and for what keeps the pipeline busy.
        """
        queued = self._pipeline.queued
        room = self._admission.room - queued.waiting(lane)
        if self._admission.is_putting_off(self._turned_at):
            idle = self._window - self._pipeline.in_progress - len(queued)
            room = min(room, max(math.ceil(self._allowance), idle))
        return room

    def _lane(self, work: RecordWork, jobs: Sequence[RecordJob], live: int, now: float, *, again: bool) -> Lane:
        """The lane for a record's jobs. A record stays where it is when a part of it is known or was tried, when it is
        suspected of killing workers, or when it is large."""
        record, own = work.record, jobs[0].lane
        if record.partition.topic not in self._incoming or len(jobs) < len(work.outputs) or jobs[0].is_alone:
            return own
        if _size(record) > MOST_MOVED_BYTES or (again and any(job.waits_since is not None for job in jobs)):
            return own
        is_alone = not self._tenants.are_several
        return self._admission.lane(
            jobs[0].event.tenant, len(jobs), own, live=live, now=now, is_alone=is_alone, again=again
        )

    def _move(self, work: RecordWork, jobs: Sequence[RecordJob], topic: str, wall: float) -> None:
        self._moved[topic] += len(jobs)
        moved = [self._completion.traced_move(job, self._output(job, topic, wall)) for job in jobs]
        self._completion.move_record(work, moved)

    @staticmethod
    def _output(job: RecordJob, topic: str, wall: float) -> Output:
        record = job.work.record
        first_seen = record.timestamp_ms if record.timestamp_ms > 0 else int(wall * 1000)
        if not record.headers and len(job.work.outputs) == 1:
            return deferred_whole(record, topic, first_seen_ms=first_seen, reason=REASON)
        moved = Deferral.model_validate({"source": job.source, "first_seen_ms": first_seen, "reason": REASON})
        return deferred_output(record, job.event, moved, topic)


def _size(record: Record) -> int:
    size = len(record.value or b"") + len(record.key or b"")
    return size + sum(len(name) + len(value or b"") for name, value in record.headers) if record.headers else size
