"""A desk on the embedded parts, with a clock that tests turn and a projector that they step."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4
from zlib import crc32

import fakeredis
import numpy as np
import redis

from schemas import AuditEntry, Contract, Decision, ReviewItem, Verdict
from worker.intake.log import LogError, Output, Partition, Record
from worker.review.answers import Choice, Decided, Lease
from worker.review.catalogue.catalogue import FILE, Catalogue
from worker.review.desk import Desk
from worker.review.index.index import Index
from worker.review.projector import Projector
from worker.review.topics import TopicBatch
from worker.settings import ReviewSettings, Settings

DIGEST = "sha256:" + "0" * 64
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


def review_item(item_id: str, **more: Any) -> ReviewItem:
    """A review item of queue `quality` that differs from all others."""
    fields: dict[str, Any] = {
        "item_id": item_id,
        "verdict_id": item_id,
        "event_id": f"event-{item_id}",
        "tenant": "default",
        "queue": "quality",
        "priority": 50,
        "created_at": START,
        "image": {"kind": "file", "path": f"/images/{item_id}.png"},
        "content_hash": None,
        "scores": {"quality": 2.0},
        "rule": "poor",
        "model": DIGEST,
        "policy": DIGEST,
        "source": {"topic": "images.in", "partition": 0, "offset": 0},
    }
    return ReviewItem(**{**fields, **more})


def verdict(event_id: str, action: str = "pass", **more: Any) -> Verdict:
    fields: dict[str, Any] = {
        "verdict_id": f"verdict-{event_id}",
        "event_id": event_id,
        "tenant": "default",
        "occurred_at": START,
        "judged_at": START,
        "image": {"kind": "file", "path": "/images/a.png"},
        "content_hash": None,
        "status": "scored",
        "scores": {"quality": 4.0},
        "route": {"action": action, "queue": "quality" if action == "review" else None, "rule": "default"},
        "model": DIGEST,
        "policy": DIGEST,
        "source": {"topic": "images.in", "partition": 0, "offset": 0},
    }
    return Verdict(**{**fields, **more})


def features(vector: Sequence[float]) -> dict[str, bytes]:
    return {"coarse": np.asarray(vector, "<f2").tobytes()}


class MemoryTopics:
    """Topics that cost no disk. `fail` makes appends fail: before the records are stored, or after."""

    def __init__(self, partitions: int = 2, clock: Callable[[], datetime] = lambda: START) -> None:
        self._records: dict[Partition, list[Record]] = {}
        self._starts: dict[Partition, int] = {}
        self._clock = clock
        self._partitions = partitions
        self.fail: str | None = None

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        if self.fail == "before":
            raise LogError("the disk is full")
        places = []
        for output in outputs:
            partition = Partition(output.topic, crc32(output.key or b"") % self._partitions)
            records = self._records.setdefault(partition, [])
            places.append((partition, len(records)))
            at = int(self._clock().timestamp() * 1000)
            records.append(Record(partition, len(records), output.value, output.key, output.headers, at))
        if self.fail == "after":
            raise LogError("no answer within 10 s")
        return places

    def ends(self, topic: str) -> dict[Partition, int]:
        partitions = [Partition(topic, number) for number in range(self._partitions)]
        return {partition: len(self._records.get(partition, ())) for partition in partitions}

    def starts(self, topic: str) -> dict[Partition, int]:
        return {partition: self._starts.get(partition, 0) for partition in self.ends(topic)}

    def trim(self, starts: Mapping[Partition, int]) -> None:
        for partition, offset in starts.items():
            self._starts[partition] = max(offset, self._starts.get(partition, 0))

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> TopicBatch:
        starts = {p: max(at, self._starts.get(p, 0)) for p, at in positions.items()}
        records = [record for p, at in starts.items() for record in self._records.get(p, [])[at:]]
        return TopicBatch(records, {p: max(at, len(self._records.get(p, ()))) for p, at in positions.items()})

    def record(self, partition: Partition, offset: int) -> Record | None:
        records = self._records.get(partition, [])
        return records[offset] if self._starts.get(partition, 0) <= offset < len(records) else None

    def close(self) -> None:
        pass


class ReviewBench:
    """One embedded desk. `items` puts items into the topic and into the index."""

    def __init__(self, review: ReviewSettings | None = None, **settings: Any) -> None:
        self.settings = Settings(review=review or ReviewSettings(**settings))
        self.now = START
        self.redis: redis.Redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
        self.topics = MemoryTopics(clock=self.clock)
        self._folder = TemporaryDirectory()
        self.catalogue = Catalogue(Path(self._folder.name) / FILE, self.settings.review)
        self.desk = self.new_desk()
        self.projector = self.new_projector()
        self.projector.catch_up()

    def clock(self) -> datetime:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def new_desk(self) -> Desk:
        return Desk(self.settings, self.topics, self.redis, self.catalogue, now=self.clock)

    def new_projector(self, catalogue: Catalogue | None = None) -> Projector:
        index = Index(self.redis)
        return Projector(self.settings, self.topics, self.redis, index, catalogue or self.catalogue, self.clock)

    def new_catalogue(self) -> Catalogue:
        """Another desk's, empty."""
        return Catalogue(Path(self._folder.name) / f"{uuid4().hex}.sqlite", self.settings.review)

    def publish(self, topic: str, *messages: Contract, key: str = "event_id") -> None:
        self.topics.append(
            [Output(topic, m.model_dump_json().encode(), str(getattr(m, key)).encode()) for m in messages]
        )

    def items(self, *items: ReviewItem) -> None:
        self.publish("images.review", *items)
        self.projector.step()

    def decide(self, lease: Lease, outcome: str, decision_id: str | None = None, **more: Any) -> Decided:
        choice = Choice(lease.item_id, lease.token, decision_id or f"d-{lease.token}", outcome, **more)  # type: ignore[arg-type]
        return self.desk.decide(choice, lease.reviewer)

    def one(self, reviewer: str, queue: str = "quality", **more: Any) -> Lease:
        (lease,) = self.desk.lease(queue, reviewer, **more)
        return lease

    def lose_lease(self, lease: Lease) -> None:
        """What the end of its time does to a lease."""
        self.redis.delete(f"sluice:{{desk}}:lease|{lease.token}")
        for key in self.redis.scan_iter(match="sluice:{desk}:job|*"):
            if self.redis.get(key) == str(lease.token).encode():
                self.redis.delete(key)

    def decisions(self) -> list[Decision]:
        return [Decision.model_validate_json(value) for value in self.written("images.decisions")]

    def audit(self) -> list[AuditEntry]:
        return [AuditEntry.model_validate_json(value) for value in self.written("images.audit")]

    def written(self, topic: str) -> list[bytes]:
        return [r.value or b"" for r in self.topics.read(dict.fromkeys(self.topics.ends(topic), 0), 0).records]

    def dump(self) -> dict[str, Any]:
        """What of the index must be the same however it was built: places, states, exclusions, all that is counted."""
        found: dict[str, Any] = {}
        for key in self.redis.scan_iter(match="sluice:{desk}:*"):
            name = key.decode().removeprefix("sluice:{desk}:")
            if name.startswith(("lane|", "waiting|", "skipped|")):
                # What a lane closes to somebody is an index of the lane, and no place where items wait.
                kind = "closed-" if "|closed|" in name else ""
                found[kind + name] = dict(self.redis.zrange(key, 0, -1, withscores=True))  # type: ignore[arg-type]
            elif name.startswith(("out|", "assigned|", "audited", "missed")):
                found[name] = self.redis.smembers(key)
            elif name.startswith(("hour|", "gold|", "votes-on", "settled-after")):
                counted: dict[bytes, bytes] = self.redis.hgetall(key)  # type: ignore[assignment]
                found[name] = {field: value for field, value in counted.items() if value != b"0"}
        return found
