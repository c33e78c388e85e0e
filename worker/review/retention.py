"""Keeps the desk bounded: settled items leave after a while, snapshots are written, old records are deleted."""

from collections.abc import Callable, Generator, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog
from pydantic import ValidationError

from schemas import ReviewItem
from worker.intake.log import LogError, Output, Partition, Record
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.contents import contents, count_by_status, oldest_decisions, oldest_items, waiting_since
from worker.review.index.index import Index
from worker.review.retention_metrics import RetentionMetrics
from worker.review.snapshot.store import KEPT, SnapshotStore, Survey
from worker.review.topics import Topics
from worker.settings import Settings

log = structlog.get_logger(__name__)

PURGE_SECONDS: Final = 600.0
RETRY: Final = timedelta(minutes=10)
GRACE: Final = timedelta(days=1)
"""How much longer than the index the catalogue keeps a settled item. A desk that still saw it may have reopened it at
the last moment."""
ITEMLESS: Final = timedelta(days=7)
"""How long the catalogue keeps decisions whose item it has not read: the item may be in a partition that is behind."""
CLOCK_TOLERANCE: Final = timedelta(hours=1)
"""Nothing is removed while this desk's clock and that of Redis differ by more."""
WRITTEN_AGAIN_AT_ONCE: Final = 50
WRITTEN_AGAIN_BYTES: Final = 4 * 1024 * 1024


class Retention:
    """Every desk removes old items from its own catalogue. The desk whose projector fills the index also removes them
    from the index, writes snapshots and deletes records.

    A record of the review or decisions topic is deleted only if all of these hold:

    - it lies before the last KEPT snapshots, which have been read back
    - it is not the record of an item that the catalogue keeps
    - it is not a decision on a settled item that the catalogue keeps, or of the last `keep_closed_days`

    Old decisions on open items are in the snapshots. The record of an item that has been open for `keep_closed_days` is
    written again, so that its inline image stays. Every step is idempotent, and the desk may die between any two.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        catalogue: Catalogue,
        index: Index,
        now: Callable[[], datetime],
        metrics: RetentionMetrics | None = None,
        server_time: Callable[[], datetime] | None = None,
    ) -> None:
        """`server_time`: the time by another machine's clock; absent, `now` is trusted."""
        self._kept = timedelta(days=settings.review.keep_closed_days)
        self._every = timedelta(hours=settings.review.snapshot_hours)
        self._names = settings.kafka.topics
        self._topics = topics
        self._catalogue = catalogue
        self._index = index
        self._now = now
        self._server_time = server_time or now
        self._trusts_clock = False
        self._clock_at: datetime | None = None
        self._metrics = metrics or RetentionMetrics(now)
        self._snapshots = SnapshotStore(settings.kafka, topics)
        self._purged_at: datetime | None = None
        self._work: Generator[None] | None = None
        self._work_at: datetime | None = None
        self._unreadable: set[str] = set()
        """Open items whose record the log does not have any more, as where it was compacted."""

    def step(self, is_ours: bool) -> None:
        """Does a little of what is due. The catalogue must hold what stands in the topics. `is_ours`: this desk works
        for all. Raises LogError, redis.RedisError."""
        if not self._clock_is_right():
            self.stop()
            return
        self._purge(is_ours)
        if not is_ours:
            self.stop()
            self._work_at = None
            return
        now = self._now()
        if self._work is None and (self._work_at is None or now >= self._work_at):
            self._work, self._work_at = self._maintain(), now + RETRY
        if self._work is not None:
            try:
                next(self._work)
            except StopIteration:
                self._work = None
            except LogError as error:
                self._work = None
                self._metrics.failed()
                log.warning("retention_failed", reason=str(error), retry_seconds=RETRY.total_seconds())

    def stop(self) -> None:
        """Stops the work in progress. It starts again at the next step."""
        if self._work is not None:
            self._work.close()
            self._work = None
        self._metrics.snapshot(None)

    def _clock_is_right(self) -> bool:
        """A clock that is months ahead would make settled items look old, and what is deleted is lost."""
        now = self._now()
        if self._clock_at is None or abs(now - self._clock_at) >= timedelta(seconds=PURGE_SECONDS):
            self._clock_at = now
            off = now - self._server_time()
            self._trusts_clock = abs(off) <= CLOCK_TOLERANCE
            if not self._trusts_clock:
                self._metrics.failed()
                log.error("retention_clock_differs", seconds=round(off.total_seconds()), other="redis")
        return self._trusts_clock

    def _purge(self, is_ours: bool) -> None:
        """Removes what was settled long ago, from the catalogue and, where that is this desk's work, the index."""
        now = self._now()
        if self._purged_at is not None and now - self._purged_at < timedelta(seconds=PURGE_SECONDS):
            return
        removed = self._catalogue.purge(now - self._kept - GRACE, now - ITEMLESS)
        if is_ours:
            before = now - self._kept
            removed += self._index.purge(before, partial(self._catalogue.decided_since, since=before))
        if removed == 0:
            self._purged_at = now
            self._metrics.kept(count_by_status(self._catalogue))

    def _maintain(self) -> Generator[None]:
        """Writes a snapshot, if one is due, and deletes what is no longer needed. Yields after each small step."""
        survey = yield from self._snapshots.survey_in_steps(self._now())
        newest = next(iter(survey.snapshots), None)
        if newest is None and not self._catalogue.count():
            return
        if newest is None or self._now() - newest.taken_at >= self._every:
            yield from self._write_again()
            yield from self._write_snapshot()
            survey = yield from self._snapshots.survey_in_steps(self._now())
            self._delete(survey)
        newest = next(iter(survey.snapshots), None)
        if newest is not None:
            self._work_at = max(newest.taken_at + self._every, self._now() + RETRY)
            self._metrics.snapshot(newest.taken_at)

    def _write_again(self) -> Generator[None]:
        """Appends the records of items that have been open for long, so that the old ones can be deleted."""
        outputs: list[Output] = []
        for item_id, partition, offset in waiting_since(self._catalogue, self._names.review, self._now() - self._kept):
            if item_id in self._unreadable:
                continue
            record = self._topics.record(partition, offset)
            if record is None or not _is_of(record, item_id):
                self._unreadable.add(item_id)
                continue
            headers = tuple((name, value) for name, value in record.headers if value is not None)
            outputs.append(Output(partition.topic, record.value or b"", record.key, headers))
            if len(outputs) >= WRITTEN_AGAIN_AT_ONCE or sum(len(o.value) for o in outputs) >= WRITTEN_AGAIN_BYTES:
                self._topics.append(outputs)
                outputs = []
                yield
        if outputs:
            self._topics.append(outputs)
            yield

    def _write_snapshot(self) -> Generator[None]:
        with contents(self._catalogue) as (positions, items):
            yield from self._snapshots.write(items, positions, self._now())

    def _delete(self, survey: Survey) -> None:
        """Deletes snapshots and records that are no longer needed. Items first: without their decisions they would look
        open to who reads the topics alone."""
        self._snapshots.trim(survey)
        if len(survey.kept) < KEPT:
            return
        starts = self._topics.starts(self._names.review)
        self._trim(self._names.review, survey, starts, oldest_items(self._catalogue, starts, self._unreadable))
        starts = self._topics.starts(self._names.decisions)
        since = self._now() - self._kept - GRACE
        self._trim(self._names.decisions, survey, starts, oldest_decisions(self._catalogue, starts, since))

    def _trim(
        self, topic: str, survey: Survey, starts: Mapping[Partition, int], needed: Mapping[Partition, int]
    ) -> None:
        bounds = {p: min(each.positions.get(p, 0) for each in survey.kept) for p in starts}
        wanted = {p: min(bound, needed.get(p, bound)) for p, bound in bounds.items()}
        wanted = {p: offset for p, offset in wanted.items() if offset > starts[p]}
        if wanted:
            self._topics.trim(wanted)
            count = sum(offset - starts[p] for p, offset in wanted.items())
            self._metrics.deleted(topic, count)
            log.info("records_deleted", topic=topic, records=count)


def _is_of(record: Record, item_id: str) -> bool:
    try:
        return ReviewItem.model_validate_json(record.value or b"").item_id == item_id
    except ValidationError:
        return False
