"""Keeps this desk's catalogue up to date with the topics, and the index in Redis up to date with the catalogue."""

import time
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from threading import Event
from typing import Any, Final

import redis
import structlog

from worker.intake.log import Partition
from worker.review.catalogue.catalogue import Catalogue
from worker.review.catalogue.reader import CatalogueReader, ReadProgress
from worker.review.index import keys
from worker.review.index.index import Index
from worker.review.retention import Retention
from worker.review.retention_metrics import RetentionMetrics
from worker.review.singleton_lease import SingletonLease
from worker.review.topics import Topics
from worker.settings import Settings

log = structlog.get_logger(__name__)

LEASE_SECONDS: Final = 5.0
"""Another desk's projector takes over when the lease was not renewed for this long."""
WAIT_SECONDS: Final = 0.1
GATHER_SECONDS: Final = 0.2
"""Pause between reads once caught up. A desk writes its own decisions to the index at once."""
PAUSE_SECONDS: Final = 1.0
SEIZED_SECONDS: Final = 60.0
FILLED_AT_ONCE: Final = 1000
TOLD_AT_MOST: Final = 5000
"""Up to this many changes at once are published as events; more means that an index is being filled."""
PROGRESS_SECONDS: Final = 30

# KEYS: positions. ARGV: generation, then fields and values. Nothing is written into an index that somebody has flushed
# or rebuilt since: what was lost with it would never be filled in again. Positions only rise.
_ADVANCE = """
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return 0 end
for index = 2, #ARGV, 2 do
  local known = tonumber(redis.call('HGET', KEYS[1], ARGV[index]) or '0')
  if tonumber(ARGV[index + 1]) > known then redis.call('HSET', KEYS[1], ARGV[index], ARGV[index + 1]) end
end
return 1
"""


@dataclass(slots=True)
class IndexProgress:
    """How far the index is filled. `targets` are the catalogue's positions that it will have once nothing is left of
    `waiting`, the items still to be filled in, those that are due first in front."""

    generation: str
    targets: dict[Partition, int] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)
    total: int = 0
    is_quiet: bool = False


class Projector:
    """Every desk's projector keeps the desk's own catalogue; where it has read to is kept in the same file. Of all
    projectors one at a time fills the index, from its catalogue; how far that is stands in Redis beside the index, so
    that both are lost together: a flushed Redis is filled again without reading the topics. Leases are given as soon as
    all decisions are known, on the items that are there. Invalid records are logged and skipped.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        client: redis.Redis,
        index: Index,
        catalogue: Catalogue,
        now: Callable[[], datetime],
        metrics: RetentionMetrics | None = None,
        server_time: Callable[[], datetime] | None = None,
    ) -> None:
        """`metrics` and `server_time` as for Retention."""
        self._reader = CatalogueReader(settings, topics, catalogue, now)
        self._redis = client
        self._index = index
        self._catalogue = catalogue
        self._now = now
        self._who = uuid.uuid4().hex
        self._advance = client.register_script(_ADVANCE)
        self._lease = SingletonLease(client, keys.PROJECTOR, self._who, LEASE_SECONDS)
        self._filled: IndexProgress | None = None
        self._retention = Retention(settings, topics, catalogue, index, now, metrics, server_time)

    def run(self, stop: Event) -> None:
        """Runs until stopped. Raises LogError and redis.RedisError; may then be called again."""
        self._reader.look_again()
        self._retention.stop()
        self._filled = None
        while not stop.is_set():
            if not self.step():
                stop.wait(PAUSE_SECONDS)
            elif self._is_done:
                stop.wait(GATHER_SECONDS)
        self._retention.stop()
        self.yield_to_others()

    def step(self) -> bool:
        """Takes in some records, and removes a little of what is kept no longer; whether this projector is the one that
        fills the index. Raises LogError, redis.RedisError."""
        is_ours = self._follow()
        if self._reader.is_caught_up:
            self._retention.step(is_ours)
        return is_ours

    def _follow(self) -> bool:
        if self._filled is not None and self._filled.waiting:
            self._reader.read(wait_seconds=0.0)  # there is work to do meanwhile
        else:
            self._reader.read()
        is_ours = self._lease.hold()
        if is_ours:
            self._fill_index()
        else:
            self._filled = None
        return is_ours

    def catch_up(self) -> None:
        """Returns when the index is ready: it holds what stood in the topics when this was called.

        Raises LogError, redis.RedisError.
        """
        self._reader.look_again()
        while True:
            if self._follow():
                if self._is_done:
                    return
            elif self._redis.exists(keys.READY):  # somebody else's work
                return
            else:
                time.sleep(WAIT_SECONDS)

    def seize(self) -> None:
        """Takes the work over from whatever projector does it."""
        self._lease.seize(SEIZED_SECONDS)

    def yield_to_others(self) -> None:
        """Lets another projector begin at once."""
        with suppress(redis.RedisError):  # the lease expires by itself
            self._lease.leave()

    @property
    def is_caught_up(self) -> bool:
        """Whether the catalogue has what stood in the topics when they were last looked at."""
        return self._reader.is_caught_up

    @property
    def _is_done(self) -> bool:
        """Whether nothing is left to read or to fill in."""
        return self._reader.is_caught_up and self._filled is not None and not self._filled.waiting

    def _fill_index(self) -> None:
        """Loads some items from the catalogue into the index, once the catalogue has all decisions."""
        read = self._reader.progress
        if read is None or (read.targets and not self._redis.exists(keys.READY)):
            if read is not None:
                self._tell_progress("reading", read.total - read.left, read.total)
            return
        progress = self._filled
        if progress is None or not progress.waiting:
            progress = self._filled = self._find_changes(read)
            if progress is None:
                self._reader.read()
                self._fill_index()
                return
        chunk = [progress.waiting.popleft() for _ in range(min(FILLED_AT_ONCE, len(progress.waiting)))]
        if chunk:
            self._index.load(self._catalogue.entries(chunk), quiet=progress.is_quiet)
            if progress.is_quiet:
                self._tell_progress("filling", progress.total - len(progress.waiting), progress.total)
        if progress.waiting:
            return
        written = [part for p, offset in progress.targets.items() for part in (keys.position_field(p), offset)]
        if written and not self._advance(keys=[keys.POSITIONS], args=[progress.generation, *written]):
            log.warning("index_lost", reason="Redis was flushed; the index is filled from the catalogue again")
            self._filled = None
            self._reader.look_again()

    def _find_changes(self, read: ReadProgress) -> IndexProgress | None:
        """The items that changed since the index was last filled; None when the topics must be read first: after Redis
        lost the index, the catalogue reads up to the present ends, so that no decision is missing when leases start."""
        is_new = not self._redis.exists(keys.READY)
        if is_new and self._filled is not None:
            self._reader.look_again()
            return None
        self._redis.hsetnx(keys.POSITIONS, "generation", self._who + uuid.uuid4().hex[:8])
        stored: Any = self._redis.hgetall(keys.POSITIONS)
        generation = stored[b"generation"].decode()
        known = {p: int(stored.get(keys.position_field(p).encode(), 0)) for p in read.positions}
        targets = {p: offset for p, offset in read.positions.items() if offset > known[p]}
        changed = self._catalogue.changed_since(known) if targets else []
        if is_new:
            log.info("index_filling", items=len(changed))
            self._redis.set(keys.READY, generation)
        is_quiet = is_new or len(changed) > TOLD_AT_MOST
        return IndexProgress(generation, targets, deque(changed), len(changed), is_quiet)

    def _tell_progress(self, phase: str, done: int, total: int) -> None:
        with self._redis.pipeline() as pipeline:
            pipeline.hset(keys.PROGRESS, mapping={"phase": phase, "done": done, "total": total})
            pipeline.expire(keys.PROGRESS, PROGRESS_SECONDS)
            pipeline.execute()


def fill(settings: Settings, topics: Topics, catalogue: Catalogue, now: Callable[[], datetime]) -> None:
    """Reads all that stands in the topics into a catalogue. Raises LogError."""
    reader = CatalogueReader(settings, topics, catalogue, now)
    while not reader.is_caught_up:
        reader.read()


def rebuild(
    settings: Settings, topics: Topics, client: redis.Redis, catalogue: Catalogue, now: Callable[[], datetime]
) -> int:
    """Removes the index and fills it again, from the catalogue once that has read the topics; the number of items.
    Desks may go on meanwhile, on what is filled. Raises LogError, redis.RedisError."""
    projector = Projector(settings, topics, client, Index(client), catalogue, now)
    projector.seize()
    # Positions first: a projector that was in the middle of something cannot note its position any more.
    client.delete(keys.POSITIONS, keys.READY)
    for key in client.scan_iter(match=f"{keys.PREFIX}*", count=1000):
        if not key.startswith((keys.PROJECTOR.encode(), keys.TOKEN.encode())):
            client.delete(key)
    projector.catch_up()
    projector.yield_to_others()
    return catalogue.count()


def catch_up(
    settings: Settings, topics: Topics, client: redis.Redis, catalogue: Catalogue, now: Callable[[], datetime]
) -> None:
    """Returns when there is an index: fills one where none is, or waits for the desk that does.

    Raises LogError, redis.RedisError.
    """
    projector = Projector(settings, topics, client, Index(client), catalogue, now)
    projector.catch_up()
    projector.yield_to_others()
