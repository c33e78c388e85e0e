"""Reads the topics into the catalogue."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

import structlog
from pydantic import ValidationError

from schemas import Contract, Decision, ReviewItem, Verdict
from worker.intake.log import Partition, Record
from worker.review.audit_plans import AuditPlanReader
from worker.review.catalogue.catalogue import Catalogue
from worker.review.placed import Placed
from worker.review.sampling import audit_item
from worker.review.snapshot.form import BrokenSnapshot
from worker.review.snapshot.store import SnapshotStore
from worker.review.topics import Topics
from worker.settings import Settings
from worker.trust.drawing import AuditDraws

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 0.1
REFRESH: Final = timedelta(seconds=60)
TAKEN_AT_ONCE: Final = 5000
"""Records a transaction. Fewer cost more for an item, since SQLite writes the same pages again."""

_T = TypeVar("_T", bound=Contract)


@dataclass(slots=True)
class ReadProgress:
    """How far the topics are read. `targets` are the ends that must be reached before the catalogue counts as complete;
    empty once they are. `begun_at` are the positions when those were looked for. `is_fresh`: the catalogue was then
    started again, from a snapshot or from nothing."""

    found_at: datetime
    begun_at: Mapping[Partition, int]
    positions: dict[Partition, int]
    targets: dict[Partition, int] = field(default_factory=dict)
    is_fresh: bool = False

    @property
    def total(self) -> int:
        """Records to read, counted from `begun_at`."""
        return sum(end - self.begun_at[p] for p, end in self.targets.items()) + self._past

    @property
    def left(self) -> int:
        return sum(end - self.positions[p] for p, end in self.targets.items())

    @property
    def _past(self) -> int:
        return sum(at - self.begun_at[p] for p, at in self.positions.items() if p not in self.targets)


class CatalogueReader:
    """Reads review items, decisions and, for the audit sample, verdicts. Records that cannot be parsed are logged
    and skipped."""

    def __init__(self, settings: Settings, topics: Topics, catalogue: Catalogue, now: Callable[[], datetime]) -> None:
        self._names = settings.kafka.topics
        self._audit_plans = AuditPlanReader(settings, topics)
        self._audit_draws = AuditDraws((), settings.review.audit_share)
        self._topics = topics
        self._catalogue = catalogue
        self._snapshots = SnapshotStore(settings.kafka, topics)
        self._now = now
        self._progress: ReadProgress | None = None

    @property
    def progress(self) -> ReadProgress | None:
        """None before the first read, and after `look_again`."""
        return self._progress

    @property
    def is_caught_up(self) -> bool:
        """Whether all has been read that stood in the topics when this reader last looked for their ends."""
        return self._progress is not None and not self._progress.targets

    def look_again(self) -> None:
        """Makes the next `read` look up the ends of the topics again."""
        self._progress = None

    def read(self, wait_seconds: float = WAIT_SECONDS) -> None:
        """Takes some records in; waits so long for one. Raises LogError."""
        progress = self._progress
        if progress is None:
            progress = self._progress = self._find_targets()
        elif not progress.targets and self._now() - progress.found_at >= REFRESH:
            progress = self._progress = self._find_targets()  # topics may have got more partitions
            if not progress.is_fresh:
                progress.targets = {}  # it was complete, and goes on being so
        batch = self._topics.read(self._order(progress), wait_seconds)
        if progress.targets and self._has_gap(progress.positions):
            log.warning("catalogue_has_a_gap", reason="records were deleted before this desk had read them")
            self._catalogue.clear()
            self._progress = None
            return
        for start in range(0, len(batch.records), TAKEN_AT_ONCE):
            records = batch.records[start : start + TAKEN_AT_ONCE]
            items, decisions = self._parsed(records)
            # Offsets rise within a partition, so what is stored of a batch that is not yet in whole is right, too.
            after = {record.partition: record.offset + 1 for record in records}
            self._catalogue.take(items, decisions, after)
        moved = {p: offset for p, offset in batch.positions.items() if progress.positions[p] != offset}
        if moved:
            self._catalogue.take((), (), moved)
        progress.positions |= moved
        progress.targets = {p: end for p, end in progress.targets.items() if progress.positions[p] < end}

    def _find_targets(self) -> ReadProgress:
        self._audit_draws = self._audit_plans.draws()
        names = (self._names.decisions, self._names.review, self._names.verdicts)
        ends = {partition: end for name in names for partition, end in self._topics.ends(name).items()}
        starts = {partition: start for name in names for partition, start in self._topics.starts(name).items()}
        stored = self._catalogue.positions()
        if any(offset > ends.get(partition, 0) for partition, offset in stored.items()):
            log.warning("catalogue_of_another_log", reason="it is ahead of the topics, so it is made again")
            self._catalogue.clear()
            stored = {}
        elif any(stored.values()) and self._has_gap(stored):
            log.warning("catalogue_has_a_gap", reason="records were deleted that it lacks, so it is made again")
            self._catalogue.clear()
            stored = {}
        is_fresh = not any(stored.values())
        if is_fresh:
            stored = self._restored()
        positions = {partition: max(stored.get(partition, 0), starts.get(partition, 0)) for partition in ends}
        if skipped := {p: at for p, at in positions.items() if at > stored.get(p, 0)}:
            self._catalogue.take((), (), skipped)  # so that this is no gap the next time
        targets = {partition: end for partition, end in ends.items() if positions[partition] < end}
        return ReadProgress(self._now(), dict(positions), positions, targets, is_fresh)

    def _has_gap(self, positions: Mapping[Partition, int]) -> bool:
        """Whether the desk has deleted records behind these positions. Verdicts expire by themselves: items made of
        them are in the snapshots."""
        return any(
            positions.get(partition, 0) < start
            for name in (self._names.review, self._names.decisions)
            for partition, start in self._topics.starts(name).items()
        )

    def _restored(self) -> dict[Partition, int]:
        """Loads the newest sound snapshot into the catalogue, in place of what is there; the positions after it, none
        without a snapshot."""
        for snapshot in self._snapshots.survey(self._now()).snapshots:
            log.info("snapshot_loading", items=snapshot.manifest.items, taken_at=snapshot.taken_at.isoformat())
            try:
                self._catalogue.restore(self._snapshots.items(snapshot), snapshot.positions)
            except BrokenSnapshot as error:
                log.error("snapshot_broken", snapshot=snapshot.name.decode(), reason=str(error))  # noqa: TRY400
            else:
                return dict(snapshot.positions)
        if self._has_gap({}):
            log.error(
                "no_snapshot",
                topic=self._names.review_snapshot,
                reason="old records have been deleted, and there is no snapshot of them: items that were settled may "
                "be open again, and old decisions on open items may be missing",
            )
        return {}

    def _order(self, progress: ReadProgress) -> Mapping[Partition, int]:
        """Decisions first while there are targets, so that an item's state is folded once."""
        decisions = {p: at for p, at in progress.positions.items() if p.topic == self._names.decisions}
        behind = any(p in progress.targets for p in decisions)
        return decisions if behind else progress.positions

    def _parsed(self, records: Sequence[Record]) -> tuple[list[Placed[ReviewItem]], list[Placed[Decision]]]:
        items: list[Placed[ReviewItem]] = []
        decisions: list[Placed[Decision]] = []
        for record in records:
            if record.value is None:
                continue  # a tombstone
            if record.partition.topic == self._names.decisions:
                decision = _message(Decision, record)
                if decision is not None:
                    decisions.append(Placed(decision, record.partition, record.offset, record.timestamp_ms / 1000))
            elif (item := self._item(record)) is not None:
                items.append(Placed(item, record.partition, record.offset, record.timestamp_ms / 1000))
        return items, decisions

    def _item(self, record: Record) -> ReviewItem | None:
        if record.partition.topic == self._names.review:
            return _message(ReviewItem, record)
        # By the key alone: many verdicts are never parsed.
        if record.key is None or not self._audit_draws.may_draw(record.key):
            return None
        verdict = _message(Verdict, record)
        draw = self._audit_draws.draw(verdict) if verdict is not None else None
        return audit_item(verdict, draw) if verdict is not None and draw is not None else None


def _message(contract: type[_T], record: Record) -> _T | None:
    try:
        return contract.model_validate_json(record.value or b"")
    except ValidationError as error:
        log.warning(
            "record_passed_over",
            topic=record.partition.topic,
            partition=record.partition.number,
            offset=record.offset,
            errors=error.error_count(),
        )
        return None
