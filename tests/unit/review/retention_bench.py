"""A desk that lives for years and can be killed at any call to the log."""

from collections.abc import Mapping, Sequence

import fakeredis

from tests.unit.review.review_bench import MemoryTopics, ReviewBench
from worker.intake.log import Output, Partition, Record
from worker.review.catalogue.catalogue import Catalogue
from worker.review.projector import Projector
from worker.review.topics import TopicBatch
from worker.settings import ReviewSettings

KEEP_DAYS = 2
DAY = 24 * 3600
RULES = ReviewSettings(keep_closed_days=KEEP_DAYS, snapshot_hours=6, audit_share=1.0)


class Killed(BaseException):
    """No code of the desk survives this."""


class MortalTopics(MemoryTopics):
    """Kills whoever makes the call after `calls_left` more."""

    calls_left: int | None = None
    silent: str | None = None
    """A topic from which nothing comes at the moment."""

    def _count(self) -> None:
        if self.calls_left is not None:
            self.calls_left -= 1
            if self.calls_left < 0:
                raise Killed

    def append(self, outputs: Sequence[Output]) -> list[tuple[Partition, int]]:
        self._count()
        places = super().append(outputs)
        self._count()  # stored, but nobody has heard of it
        return places

    def trim(self, starts: Mapping[Partition, int]) -> None:
        for partition, offset in starts.items():
            self._count()
            super().trim({partition: offset})

    def read(self, positions: Mapping[Partition, int], wait_seconds: float) -> TopicBatch:
        self._count()
        heard = {p: at for p, at in positions.items() if p.topic != self.silent}
        batch = super().read(heard, wait_seconds)
        return TopicBatch(batch.records, {**positions, **batch.positions})

    def record(self, partition: Partition, offset: int) -> Record | None:
        self._count()
        return super().record(partition, offset)


def bench_of(rules: ReviewSettings = RULES) -> ReviewBench:
    bench = ReviewBench(rules)
    bench.topics = MortalTopics(clock=bench.clock)
    bench.desk = bench.new_desk()
    bench.projector = bench.new_projector()
    bench.redis.flushall()
    bench.projector.catch_up()
    return bench


def run_for(bench: ReviewBench, days: float, steps: int = 8) -> None:
    """Days in which a desk is at work, `steps` snapshots long at least."""
    for _ in range(steps):
        bench.sleep(days * DAY / steps)
        for _ in range(12):
            bench.projector.step()


def starts(bench: ReviewBench, topic: str) -> int:
    return sum(bench.topics.starts(topic).values())


def rebuilt(bench: ReviewBench) -> tuple[Catalogue, Projector]:
    """Another desk, that has nothing but the topics."""
    catalogue = bench.new_catalogue()
    bench.redis = fakeredis.FakeRedis(server=fakeredis.FakeServer(), protocol=2)
    projector = bench.new_projector(catalogue)
    projector.catch_up()
    return catalogue, projector
