"""What a record that needs no engine costs, by each Kafka client, beside bare loops of the same clients.

    python -m ops.benchmarks.clients_benchmark [--short] [--out FOLDER]

Sluice consumes image events, finds each score in Redis, and writes verdicts and offsets in transactions. The bare loops
consume the same records and produce them again: kafka-python without transactions, librdkafka (confluent-kafka) with
them. The processor time is that of all client processes, from the first record to the last commit; broker and Redis are
not counted. Only ratios are worth quoting: they are formed within each round, whose runs follow one another, and their
median is reported.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import redis
from confluent_kafka import Consumer, Producer
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from prometheus_client import CollectorRegistry
from rich.table import Table

from ops.benchmarks.pipeline_benchmark import committed, first_poll, kafka_settings, publish, running
from ops.benchmarks.processes import processor_seconds
from ops.benchmarks.results import Options, console, machine, option_parser
from ops.benchmarks.results import publish as publish_results
from ops.dev.servers import KafkaServer, RedisServer
from schemas import NO_PROVENANCE, ImageEvent, S3Reference, Scores
from worker.cache.client import connect
from worker.cache.score_cache import ScoreCache
from worker.cache.values import CachedScore, ScoreKey
from worker.charts import bar_chart
from worker.images.provenance.reader import ProvenanceReader
from worker.intake.kafka_connection import connection_options
from worker.intake.librdkafka_options import consumer_options, producer_options
from worker.scoring.model import load_model
from worker.settings import KafkaSettings, Settings
from worker.telemetry.metrics import Metrics
from worker.wiring import build_worker

OBJECTS = 1000
EVENTS = 150_000
ROUNDS = 3
BATCH = 1000
SERVERS = ("java", "redis-server")
BASE = "bare kafka-python"


@dataclass(frozen=True, slots=True)
class Run:
    """Records a second by the clock, and processor time a record of all client processes."""

    per_second: float
    processor_us: float


class Stopwatch:
    """From the first record to the last commit."""

    def __init__(self) -> None:
        self._started, self._used = time.perf_counter(), _clients()

    def stop(self, count: int) -> Run:
        return Run(count / (time.perf_counter() - self._started), 1e6 * (_clients() - self._used) / count)


def _clients() -> float:
    return sum(seconds for name, seconds in processor_seconds().items() if name not in SERVERS)


def object_events(count: int) -> list[tuple[bytes, bytes]]:
    now = datetime.now(UTC)
    events = (
        ImageEvent(
            id=f"event-{i}",
            occurred_at=now,
            tenant="acme",
            image=S3Reference(bucket="bucket", key=f"images/{i % OBJECTS}.jpg", etag=f"{i % OBJECTS:032x}"),
            generator="some-model-v1",
        )
        for i in range(count)
    )
    return [(event.id.encode(), event.model_dump_json(by_alias=True).encode()) for event in events]


def fill_cache(settings: Settings) -> None:
    model = load_model(settings.model)
    cache = ScoreCache(
        connect(settings.redis),
        model_digest=model.manifest.digest,
        reads_prompts=model.manifest.judges_prompts,
        ttl_seconds=3600,
        metrics=Metrics(CollectorRegistry()),
        provenance=ProvenanceReader().identity,
    )
    features = {tower.name: bytes(2 * tower.features) for tower in model.manifest.towers}
    for i in range(OBJECTS):
        content = f"sha256:{i:064x}"
        quality = 1.2 if i % 20 == 0 else 4.0  # one in twenty goes to review
        score = CachedScore(Scores(quality=quality, anchors=(0.2,) * 5, coarse_share=0.5), features, NO_PROVENANCE)
        alias = S3Reference(bucket="bucket", key=f"images/{i}.jpg", etag=f"{i:032x}")
        cache.put({ScoreKey(content, None): score}, {alias: content})


def sluice(count: int, settings: Settings) -> Run:
    """The worker, with every score in the cache."""
    worker = build_worker(settings)
    with closing(KafkaAdminClient(**connection_options(settings.kafka))) as admin, running(worker):
        first_poll(worker)
        watch = Stopwatch()
        # Asking the broker takes the interpreter's time: not before all have been read.
        while worker.metrics.records_polled._value.get() < count or committed(admin, settings.kafka) < count:
            time.sleep(0.02)
        return watch.stop(count)


def bare_kafka_python(count: int, settings: KafkaSettings) -> Run:
    """Consume, produce the value again, commit at the end; no transactions."""
    consumer = KafkaConsumer(
        settings.topics.images,
        **connection_options(settings),
        group_id=settings.group_id,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = KafkaProducer(**connection_options(settings), linger_ms=5, batch_size=256 * 1024)
    seen, watch = 0, None
    while seen < count:
        for records in consumer.poll(timeout_ms=200).values():
            watch = watch or Stopwatch()
            seen += len(records)
            for record in records:
                producer.send(settings.topics.verdicts, key=record.key, value=record.value)
    producer.flush()
    consumer.commit()
    run = (watch or Stopwatch()).stop(count)
    producer.close()
    consumer.close()
    return run


def bare_librdkafka(count: int, settings: KafkaSettings) -> Run:
    """Consume, produce the value again, commit values and offsets in a transaction for each batch."""
    ours = settings.model_copy(update={"transactional_id": f"{settings.group_id}-bare"})
    consumer = Consumer(consumer_options(ours) | {"auto.offset.reset": "earliest", "enable.partition.eof": False})
    producer = Producer(producer_options(ours, 256 * 1024))
    producer.init_transactions()
    consumer.subscribe([settings.topics.images])
    seen, watch = 0, None
    while seen < count:
        messages = consumer.consume(BATCH, 0.2)
        if not messages:
            continue
        watch = watch or Stopwatch()
        producer.begin_transaction()
        for message in messages:
            producer.produce(settings.topics.verdicts, message.value(), message.key())
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()
        seen += len(messages)
    run = (watch or Stopwatch()).stop(count)
    consumer.close()
    return run


def measure(events: int, rounds: int) -> dict[str, list[Run]]:
    """The runs of each kind, round by round."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        base = Settings()
        kafka, cache = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        kafka.start()
        cache.start()
        try:
            runs: dict[str, list[Run]] = {}
            published = object_events(events)
            for turn in range(rounds):
                for name, work in KINDS.items():
                    with redis.Redis.from_url(cache.url) as client:
                        client.flushall()
                    settings = kafka_settings(base, kafka, cache, f"{name.replace(' ', '-')}-{turn}")
                    fill_cache(settings)
                    publish(settings.kafka, published)
                    run = work(events, settings)
                    runs.setdefault(name, []).append(run)
                    console.print(
                        f"round {turn + 1}: {name}: {run.per_second:,.0f} a second, {run.processor_us:.1f} µs a record"
                    )
        finally:
            kafka.stop()
            cache.stop()
    return runs


def _with_client(settings: Settings, client: str) -> Settings:
    return settings.model_copy(update={"kafka": settings.kafka.model_copy(update={"client": client})})


KINDS: Mapping[str, Callable[[int, Settings], Run]] = {
    BASE: lambda count, settings: bare_kafka_python(count, settings.kafka),
    "Sluice with kafka-python": lambda count, settings: sluice(count, _with_client(settings, "kafka-python")),
    "bare librdkafka": lambda count, settings: bare_librdkafka(count, settings.kafka),
    "Sluice with librdkafka": lambda count, settings: sluice(count, _with_client(settings, "librdkafka")),
}


def run(options: Options) -> None:
    events, rounds = (500, 1) if options.short else (EVENTS, ROUNDS)
    runs = measure(events, rounds)
    table = Table("what", "a second (median)", "processor µs a record (median)", f"rate / {BASE}", f"µs / {BASE}")
    report: dict[str, object] = {
        "measured_on": machine("kafka-python", "confluent-kafka", "redis"),
        "events": events,
        "rounds": rounds,
    }
    shares: dict[str, float] = {}
    for name, found in runs.items():
        rates = [one.per_second for one in found]
        costs = [one.processor_us for one in found]
        pairs = list(zip(found, runs[BASE], strict=True))
        rate_share = statistics.median(one.per_second / base.per_second for one, base in pairs)
        cost_share = statistics.median(one.processor_us / base.processor_us for one, base in pairs)
        rate, cost = statistics.median(rates), statistics.median(costs)
        table.add_row(name, f"{rate:,.0f}", f"{cost:.1f}", f"{rate_share:.2f}", f"{cost_share:.2f}")
        report[name] = {
            "per_second": round(rate),
            "processor_us": round(cost, 1),
            "rate_ratio": round(rate_share, 3),
            "processor_ratio": round(cost_share, 3),
        }
        shares[f"{name} ({cost:.0f} µs of processor a record)"] = rate
    publish_results(
        "clients", options, report, [table], bar_chart("Records from the cache", "records a second", shares)
    )


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
