"""Carries the topics into the index."""

import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

import redis
import structlog
from pydantic import ValidationError

from schemas import Contract, Decision, ReviewItem, Verdict
from worker.intake.log import Partition, Record
from worker.review.index import keys
from worker.review.index.index import Index, Placed
from worker.review.sampling import audit_item, is_sampled
from worker.review.singleton_lease import SingletonLease
from worker.review.topics import Topics
from worker.settings import Settings

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 5.0
"""After so long without a sign of life another desk's projector takes over."""
WAIT_SECONDS: Final = 0.1
GATHER_SECONDS: Final = 0.2
"""So long records may gather once all has been read. What a desk has decided it has put into the index itself."""
PAUSE_SECONDS: Final = 1.0
SEIZED_SECONDS: Final = 60.0
REFRESH: Final = timedelta(seconds=60)
PURGE_SECONDS: Final = 600.0
APPLIED_AT_ONCE: Final = 500

_T = TypeVar("_T", bound=Contract)

# KEYS: positions, ready. ARGV: generation, 1 when all has been read, then fields and values. Nothing is written into an
# index that somebody has flushed or begun anew since: the projector would never read again what was lost with it.
_ADVANCE = """
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 0 end
if #ARGV > 2 then redis.call('HSET', KEYS[1], unpack(ARGV, 3)) end
if ARGV[2] == '1' then redis.call('SET', KEYS[2], ARGV[1]) end
return 1
"""


@dataclass(slots=True)
class _Course:
    """How far an index is read. `goals` are the ends that it must reach to be ready; empty once it is."""

    generation: str
    found_at: datetime
    positions: dict[Partition, int]
    goals: dict[Partition, int] = field(default_factory=dict)


class Projector:
    """Reads review items, decisions and, for the audit sample, verdicts, and writes them into the index.

    Where it stands is kept in Redis beside the index, so that both are lost together: a flushed Redis is filled again
    from the beginning, and no lease is given until it is full. Of all desks' projectors one works at a time. Records
    that are none of ours are counted, logged and passed over.
    """

    def __init__(
        self, settings: Settings, topics: Topics, client: redis.Redis, index: Index, now: Callable[[], datetime]
    ) -> None:
        self._names = settings.kafka.topics
        self._audit_share = settings.review.audit_share
        self._kept = timedelta(days=settings.review.keep_closed_days)
        self._topics = topics
        self._redis = client
        self._index = index
        self._now = now
        self._who = uuid.uuid4().hex
        self._advance = client.register_script(_ADVANCE)
        self._job = SingletonLease(client, keys.PROJECTOR, self._who, LEASE_SECONDS)
        self._course: _Course | None = None
        self._purged_at: datetime | None = None

    def run(self, stop: threading.Event) -> None:
        """Works until told to stop. Raises LogError and redis.RedisError; may then be called again."""
        self._course = None
        while not stop.is_set():
            if not self.step():
                stop.wait(PAUSE_SECONDS)
            elif self._is_ready:
                stop.wait(GATHER_SECONDS)
        self.yield_to_others()

    def step(self) -> bool:
        """Takes in some records; whether this projector is the one that works. Raises LogError, redis.RedisError."""
        if not self._job.hold():
            self._course = None
            return False
        course = self._course
        if course is None or (not course.goals and self._now() - course.found_at >= REFRESH):
            course = self._course = self._find_course()  # again and again, as topics may get more partitions
        batch = self._topics.read(self._order(course), WAIT_SECONDS)
        self._apply(batch.records, quiet=bool(course.goals))
        moved = {p: offset for p, offset in batch.positions.items() if course.positions[p] != offset}
        course.positions |= moved
        course.goals = {p: goal for p, goal in course.goals.items() if course.positions[p] < goal}
        written = [part for p, offset in moved.items() for part in (_field(p), offset)]
        ready = "0" if course.goals else "1"
        if not self._advance(keys=[keys.POSITIONS, keys.READY], args=[course.generation, ready, *written]):
            log.warning("index_lost", reason="Redis was flushed; the index is built from the topics again")
            self._course = None
        self._purge()
        return True

    def catch_up(self) -> None:
        """Returns when the index is ready: it holds what stood in the topics when it was begun.

        Raises LogError, redis.RedisError.
        """
        while True:
            if self.step():
                if self._is_ready:
                    return
            elif self._redis.exists(keys.READY):  # somebody else's work
                return
            else:
                time.sleep(WAIT_SECONDS)

    def seize(self) -> None:
        """Takes the work over from whatever projector does it."""
        self._job.seize(SEIZED_SECONDS)

    def yield_to_others(self) -> None:
        """Lets another projector begin at once."""
        with suppress(redis.RedisError):  # it ends by itself
            self._job.leave()

    @property
    def _is_ready(self) -> bool:
        """Whether all has been read that stood in the topics when it began."""
        return self._course is not None and not self._course.goals

    def _find_course(self) -> _Course:
        """Where the index stands; a new one is begun where there is none."""
        names = (self._names.decisions, self._names.review, self._names.verdicts)
        ends = {partition: end for name in names for partition, end in self._topics.ends(name).items()}
        self._redis.hsetnx(keys.POSITIONS, "generation", self._who + uuid.uuid4().hex[:8])
        stored: Any = self._redis.hgetall(keys.POSITIONS)
        positions = {partition: int(stored.get(_field(partition).encode(), 0)) for partition in ends}
        goals = {partition: end for partition, end in ends.items() if positions[partition] < end}
        if self._redis.exists(keys.READY):
            goals = {}
        elif goals:
            log.info("index_building", records=sum(goals.values()) - sum(positions[p] for p in goals))
        return _Course(stored[b"generation"].decode(), self._now(), positions, goals)

    def _order(self, course: _Course) -> Mapping[Partition, int]:
        """Decisions first while there are goals: an item must not look open whose decision is yet to be read."""
        decisions = {p: at for p, at in course.positions.items() if p.topic == self._names.decisions}
        behind = any(p in course.goals for p in decisions)
        return decisions if behind else course.positions

    def _apply(self, records: Sequence[Record], *, quiet: bool) -> None:
        for start in range(0, len(records), APPLIED_AT_ONCE):
            items: list[Placed[ReviewItem]] = []
            decisions: list[Placed[Decision]] = []
            for record in records[start : start + APPLIED_AT_ONCE]:
                if record.value is None:
                    continue  # a tombstone
                if record.partition.topic == self._names.decisions:
                    decision = _parsed(Decision, record)
                    if decision is not None:
                        decisions.append(Placed(decision, record.partition, record.offset))
                elif (item := self._item(record)) is not None:
                    items.append(Placed(item, record.partition, record.offset))
            self._index.apply(items, decisions, quiet=quiet)
            self._job.hold()

    def _item(self, record: Record) -> ReviewItem | None:
        if record.partition.topic == self._names.review:
            return _parsed(ReviewItem, record)
        # By the key alone: most verdicts are never parsed.
        if record.key is None or not is_sampled(record.key, self._audit_share):
            return None
        verdict = _parsed(Verdict, record)
        return audit_item(verdict) if verdict is not None else None

    def _purge(self) -> None:
        now = self._now()
        is_due = self._purged_at is None or now - self._purged_at >= timedelta(seconds=PURGE_SECONDS)
        if is_due and self._index.purge(now - self._kept) == 0:
            self._purged_at = now


def catch_up(settings: Settings, topics: Topics, client: redis.Redis, now: Callable[[], datetime]) -> None:
    """Returns when there is an index: builds one where none is, or waits for the desk that does.

    Raises LogError, redis.RedisError.
    """
    projector = Projector(settings, topics, client, Index(client, settings.review), now)
    projector.catch_up()
    projector.yield_to_others()


def rebuild(settings: Settings, topics: Topics, client: redis.Redis, now: Callable[[], datetime]) -> int:
    """Removes the index and builds it from the topics; the number of items it holds then. Desks may go on meanwhile:
    they give no leases until it is done. Raises LogError, redis.RedisError."""
    projector = Projector(settings, topics, client, Index(client, settings.review), now)
    projector.seize()
    # Positions first: a projector that was in the middle of something cannot note its position any more.
    client.delete(keys.POSITIONS, keys.READY)
    for key in client.scan_iter(match=f"{keys.PREFIX}*", count=1000):
        if not key.startswith((keys.PROJECTOR.encode(), keys.TOKEN.encode())):
            client.delete(key)
    projector.catch_up()
    projector.yield_to_others()
    return int(client.zcard(keys.NEWEST))


def _field(partition: Partition) -> str:
    return f"{partition.topic}|{partition.number}"


def _parsed(contract: type[_T], record: Record) -> _T | None:
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
