"""The desk with many open items, on real Kafka and Redis: how fast its index is built, filled, and rebuilt from a
snapshot, how large it is, and how long a lease, a decision and a search take then.

    python -m ops.benchmarks.desk_scale_benchmark [--short] [--out FOLDER] [--items N]

Every item has a prompt of 30 words, a content hash and the features of two towers, as the worker writes them; one in
ten is decided. Processor time is the desk's own, and Redis's beside it: on a busy machine the clock says little. Run it
with OMP_NUM_THREADS=1, so that the desk keeps to one core. Times of leases, decisions and searches are by the clock,
one after the other.
"""

import itertools
import os
import statistics
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import redis
from kafka import KafkaProducer
from pydantic import SecretStr
from rich.table import Table

from ops.benchmarks.results import Options, console, machine, option_parser, publish
from ops.dev.servers import KafkaServer, RedisServer
from schemas import Decision, ReviewItem, S3Reference, Scores, Source
from worker.charts import bar_chart
from worker.intake.topics import create_topics
from worker.review.answers import Choice, Query, Status
from worker.review.catalogue.catalogue import FILE, Catalogue
from worker.review.catalogue.contents import contents
from worker.review.catalogue.reader import CatalogueReader
from worker.review.desk import Desk
from worker.review.index.index import Index
from worker.review.open_topics import open_topics
from worker.review.projector import Projector, rebuild
from worker.review.snapshot.store import SnapshotStore
from worker.review.topics import Topics
from worker.settings import KafkaSettings, RedisSettings, ReviewSettings, Settings

QUEUE = "quality"
ITEMS = 200_000
SHORT_ITEMS = 2_000
WORDS = 20_000
ACTS = 200
"""Leases and decisions that are timed."""
SEARCHES = 40
"""Of each kind."""
GOALS = {"lease": 20.0, "decide": 30.0, "search": 300.0}
"""Milliseconds at the 95th percentile."""
GOAL_ITEMS_A_SECOND = 5_000
GOAL_REBUILD_SECONDS = 60.0
"""Of two cores, from the snapshot, with ITEMS."""
BUILDS = (
    "read_the_topics",
    "fill_redis",
    "fill_a_flushed_redis",
    "start_with_all_there",
    "write_a_snapshot",
    "rebuild_from_the_snapshot",
)
GOAL_BYTES = 3_072


def words(count: int) -> list[str]:
    """Made-up ones, the same each time."""
    random = np.random.default_rng(7)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return ["".join(random.choice(letters, size=size)) for size in random.integers(3, 10, size=count)]


def items(count: int, vocabulary: list[str]) -> Iterator[ReviewItem]:
    """Frequent words are in many prompts, as in any language (Zipf). The first item alone has the word `heron`."""
    random = np.random.default_rng(11)
    begun = datetime.now(UTC) - timedelta(days=3)
    for number in range(count):
        prompt = " ".join(vocabulary[place] for place in random.zipf(1.2, size=30) % len(vocabulary))
        item_id = f"{number:032x}"
        towers = random.standard_normal((2, 512)).astype("<f2")
        yield ReviewItem(
            item_id=item_id,
            verdict_id=item_id,
            event_id=f"event-{number:08d}",
            tenant=f"tenant-{number % 20}",
            queue=QUEUE,
            priority=number % 101,
            created_at=begun + timedelta(milliseconds=number),
            image=S3Reference(bucket="generated-images", key=f"2026/11/30/{number:09d}.png"),
            content_hash=f"sha256:{number:064x}",
            prompt=f"{prompt} heron" if number == 0 else prompt,
            generator="sdxl-1.0",
            scores=Scores(quality=1.0 + number % 300 / 100, anchors=(0.5, 0.3, 0.1, 0.06, 0.04), coarse_share=0.4),
            labels=("artefacts",) if number % 7 == 0 else (),
            rule="poor",
            features={"coarse": towers[0].tobytes(), "fine": towers[1].tobytes()},
            model="sha256:" + "a" * 64,
            policy="sha256:" + "b" * 64,
            source=Source(topic="images.in", partition=0, offset=number),
        )


def decision(item: ReviewItem, number: int) -> Decision:
    return Decision(
        decision_id=f"decision-{item.item_id}",
        item_id=item.item_id,
        verdict_id=item.verdict_id,
        event_id=item.event_id,
        tenant=item.tenant,
        queue=item.queue,
        reviewer=f"reviewer-{number % 50}",
        outcome="reject",
        resolution="reject",
        labels=("anatomy",),
        note="six fingers on the left hand",
        decided_at=datetime.now(UTC),
        fencing_token=1,
    )


def fill_topics(settings: Settings, count: int) -> None:
    topics = settings.kafka.topics
    vocabulary = words(WORDS)
    with closing(KafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers, linger_ms=20)) as producer:
        for number, item in enumerate(items(count, vocabulary)):
            producer.send(topics.review, key=item.event_id.encode(), value=item.model_dump_json().encode())
            if number % 10 == 5:
                made = decision(item, number)
                producer.send(topics.decisions, key=item.item_id.encode(), value=made.model_dump_json().encode())
        producer.flush()


class Costs:
    """What a piece of work takes: of this process, of Redis, and by the clock."""

    def __init__(self, client: redis.Redis, count: int) -> None:
        self._redis = client
        self._count = count

    def of(self, work: Callable[[], object]) -> dict[str, float]:
        used, theirs, begun = time.process_time(), self._redis_seconds(), time.perf_counter()
        work()
        seconds, ours = time.perf_counter() - begun, time.process_time() - used
        return {
            "seconds": round(seconds, 2),
            "processor_seconds": round(ours, 2),
            "redis_processor_seconds": round(self._redis_seconds() - theirs, 2),
            "items_a_processor_second": round(self._count / ours),
        }

    def _redis_seconds(self) -> float:
        found: Any = self._redis.info("cpu")
        return float(found["used_cpu_sys"]) + float(found["used_cpu_user"])


def measure(count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sluice-desk-scale-") as name:
        folder = Path(name)
        kafka, redis_server = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        try:
            kafka.start()
            redis_server.start()
            settings = Settings(
                kafka=KafkaSettings(bootstrap_servers=kafka.bootstrap_servers),
                redis=RedisSettings(url=SecretStr(redis_server.url)),
                review=ReviewSettings(audit_share=0.0),
            )
            create_topics(settings.kafka, partitions=4, replication_factor=1)
            fill_topics(settings, count)
            with closing(redis.Redis.from_url(redis_server.url, protocol=2)) as client:
                return {"measured_on": machine("kafka-python", "redis"), **_measured(settings, folder, client, count)}
        finally:
            kafka.stop()
            redis_server.stop()


def _measured(settings: Settings, folder: Path, client: redis.Redis, count: int) -> dict[str, Any]:
    costs = Costs(client, count)
    empty = _used(client)
    path = folder / FILE
    with (
        closing(open_topics(settings, None)) as topics,
        closing(Catalogue(path, settings.review)) as catalogue,
    ):
        reader = CatalogueReader(settings, topics, catalogue, _now)

        def read() -> None:
            while not reader.is_caught_up:
                reader.read()

        def fill() -> None:
            projector = Projector(settings, topics, client, Index(client), catalogue, _now)
            projector.catch_up()
            projector.yield_to_others()

        reading = costs.of(read)
        first = costs.of(fill)
        size = (_used(client) - empty) / count
        client.flushall(asynchronous=True)
        refill = costs.of(fill)
        restart = costs.of(fill)
        assert catalogue.count() == count
        snapshot = costs.of(lambda: _write_snapshot(settings, topics, catalogue))
        rebuild = _rebuild(settings, folder, client, costs, count)
        desk = Desk(settings, topics, client, catalogue)
        assert sum(queue.open for queue in desk.queues()) == count - count // 10
        return {
            "items": count,
            "read_the_topics": reading,
            "fill_redis": first,
            "fill_a_flushed_redis": refill,
            "start_with_all_there": restart,
            "write_a_snapshot": snapshot,
            "rebuild_from_the_snapshot": rebuild,
            "redis_bytes_an_item": round(size),
            "catalogue_bytes_an_item": round(path.stat().st_size / count),
            "milliseconds": {what: _spread(values) for what, values in _times(desk).items()},
            "load_average": round(os.getloadavg()[0], 1),
            "goals": {
                "milliseconds_p95": GOALS,
                "items_a_processor_second": GOAL_ITEMS_A_SECOND,
                "redis_bytes_an_item": GOAL_BYTES,
                "rebuild_seconds": GOAL_REBUILD_SECONDS,
            },
        }


def _write_snapshot(settings: Settings, topics: Topics, catalogue: Catalogue) -> None:
    with contents(catalogue) as (positions, items):
        for _ in SnapshotStore(settings.kafka, topics).write(items, positions, _now()):
            pass


def _rebuild(settings: Settings, folder: Path, client: redis.Redis, costs: Costs, count: int) -> dict[str, float]:
    """What `sluice desk rebuild` does: an empty catalogue, an empty index, and the topics."""
    client.flushall(asynchronous=True)
    path = folder / "rebuild" / FILE
    with closing(open_topics(settings, None)) as topics, closing(Catalogue(path, settings.review)) as catalogue:
        cost = costs.of(lambda: rebuild(settings, topics, client, catalogue, _now))
        assert catalogue.count() == count
    return cost


def _times(desk: Desk) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {"lease": [], "decide": []}
    for _ in range(ACTS):
        begun = time.perf_counter()
        (lease,) = desk.lease(QUEUE, "ann")
        leased = time.perf_counter()
        desk.decide(Choice(lease.item_id, lease.token, uuid.uuid4().hex, "approve"), "ann")
        times["lease"].append(1000 * (leased - begun))
        times["decide"].append(1000 * (time.perf_counter() - leased))
    vocabulary = words(WORDS)
    kinds: dict[str, Callable[[int], Query]] = {
        "search, the oldest": lambda _: Query(text="heron"),
        "search, frequent word": lambda n: Query(text=vocabulary[n % 5 + 1]),
        "search, three frequent words": lambda n: Query(text=" ".join(vocabulary[n % 3 + 1 : n % 3 + 4])),
        "search, rare word": lambda n: Query(text=vocabulary[-1 - n]),
        "search, beginning of words": lambda n: Query(text=vocabulary[n][:3]),
        "search, nothing found": lambda _: Query(text="nowhere"),
        "search, by note and status": lambda _: Query(text="six fingers", status=Status.REJECTED),
        "search, by reviewer and tenant": lambda n: Query(reviewer=f"reviewer-{n % 50}", tenant="tenant-5"),
        "search, by quality, none": lambda _: Query(min_quality=4.9),
    }
    for name, query in kinds.items():
        times[name] = []
        for number in range(SEARCHES):
            begun = time.perf_counter()
            found = desk.search(query(number))
            times[name].append(1000 * (time.perf_counter() - begun))
            if name == "search, the oldest":
                assert [view.item.item_id for view in found.items] == [f"{0:032x}"]
    return times | {
        "search, all": list(itertools.chain(*(t for name, t in times.items() if name.startswith("search"))))
    }


def _spread(values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100, method="inclusive")
    return {"count": len(values), "p50": round(cuts[49], 1), "p95": round(cuts[94], 1), "max": round(max(values), 1)}


def _used(client: redis.Redis) -> int:
    found: Any = client.info("memory")
    return int(found["used_memory"])


def _now() -> datetime:
    return datetime.now(UTC)


def run(options: Options, count: int) -> None:
    result = measure(count)
    acts = Table("request", "count", "p50", "p95", "max", title=f"{count:,} items, milliseconds")
    for what, spread in result["milliseconds"].items():
        acts.add_row(what, *(str(spread[name]) for name in ("count", "p50", "p95", "max")))
    builds = Table("work", "items a processor second", "seconds", "of Redis", title="Building the index")
    for what in BUILDS:
        cost = result[what]
        builds.add_row(
            what.replace("_", " "),
            f"{cost['items_a_processor_second']:,}",
            str(cost["seconds"]),
            str(cost["redis_processor_seconds"]),
        )
    publish("desk_scale", options, result, [builds, acts], plot(result))
    console.print(
        f"an item takes {result['redis_bytes_an_item']:,} bytes of Redis, "
        f"{result['catalogue_bytes_an_item']:,} of the catalogue"
    )


def plot(result: Mapping[str, Any]) -> str:
    values = {what: spread["p95"] for what, spread in result["milliseconds"].items()}
    return bar_chart(f"The desk with {result['items']:,} items, 95th percentile", "milliseconds", values)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--items", type=int, metavar="N", help=f"absent: {ITEMS}")
    given = parser.parse_args()
    run(Options(given.short, given.out), given.items or (SHORT_ITEMS if given.short else ITEMS))


if __name__ == "__main__":
    main()
