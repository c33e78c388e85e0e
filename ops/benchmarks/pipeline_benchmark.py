"""How much of the slowest stage's speed the whole pipeline keeps, embedded and through Kafka; all in one run.

    python -m ops.benchmarks.pipeline_benchmark [--short] [--out FOLDER]

Stages alone: fetch + decode + views, and the engine with heads. Pipelines: the embedded one (SQLite log), and the one
on Kafka and Redis with the engine in process. clients_benchmark.py measures records that need no engine. Only ratios
are worth quoting: they are formed within each round, whose runs follow one another, and their median is reported. A
stream has no end, so the runs are long enough that filling the pipeline and emptying it, about 0.6 s, hardly counts.
"""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import redis
from kafka import KafkaProducer
from kafka.admin import KafkaAdminClient
from PIL import Image
from pydantic import SecretStr
from rich.table import Table

from ops.benchmarks.results import Options, console, machine, median_ratio, option_parser
from ops.benchmarks.results import publish as publish_results
from ops.dev.servers import KafkaServer, RedisServer
from ops.dev.worker_topics import WORKER_TOPICS
from schemas import FileReference, ImageEvent
from worker.charts import bar_chart
from worker.images.decode import decode
from worker.images.views import make_views
from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_connection import connection_options
from worker.intake.kafka_reading import open_reader, partitions_of
from worker.intake.log import Output
from worker.intake.topics import create_topics
from worker.samples.sample import SAMPLE_IMAGES
from worker.scoring.model import load_model
from worker.settings import FileSettings, KafkaSettings, RedisSettings, Settings
from worker.wiring import Worker, build_embedded_worker, build_worker, open_engine

PARTITIONS = 4
IMAGES = 2400
ROUNDS = 3
GOALS = {"embedded / slowest stage alone": 0.85, "kafka / slowest stage alone": 0.75}


def distinct_jpegs(folder: Path, count: int) -> list[Path]:
    """`count` JPEGs of 512 px with different contents, made of the shipped samples by small shifts of colour."""
    originals = [Image.open(path).convert("RGB") for path in sorted(SAMPLE_IMAGES.glob("*.jpg"))]
    paths = []
    for i in range(count):
        original, shift = originals[i % len(originals)], i // len(originals)
        shifted = original.point([min(255, value + shift) for value in range(256)] * 3)
        path = folder / f"{i}.jpg"
        shifted.save(path, quality=92)
        paths.append(path)
    return paths


def rate(count: int, work: Callable[[], None]) -> float:
    started = time.perf_counter()
    work()
    return count / (time.perf_counter() - started)


def decode_rate(paths: Sequence[Path], settings: Settings) -> float:
    views = load_model(settings.model).manifest.views

    def one(path: Path) -> None:
        make_views(decode(path.read_bytes(), max_pixels=settings.images.max_pixels), views)

    with ThreadPoolExecutor(settings.intake.prepare_threads) as pool:
        return rate(len(paths), lambda: list(pool.map(one, paths)) and None)


def engine_rate(paths: Sequence[Path], settings: Settings) -> float:
    model = load_model(settings.model)
    engine = open_engine(settings, model)
    size = settings.intake.batch_size
    images = [make_views(decode(p.read_bytes(), max_pixels=10**8), model.manifest.views) for p in paths[:size]]
    batch = {name: np.stack([image[name] for image in images]) for name in images[0]}
    batches = max(1, len(paths) // size)
    with ThreadPoolExecutor(settings.intake.batches_in_flight) as pool:
        speed = rate(
            batches * size,
            lambda: list(pool.map(lambda _: model.heads.score(engine.infer(batch)), range(batches))) and None,
        )
    engine.close()
    return speed


def file_events(paths: Sequence[Path]) -> list[tuple[bytes, bytes]]:
    now = datetime.now(UTC)
    events = [
        ImageEvent(id=f"event-{i}", occurred_at=now, image=FileReference(path=str(p))) for i, p in enumerate(paths)
    ]
    return [(event.id.encode(), event.model_dump_json(by_alias=True).encode()) for event in events]


@contextmanager
def running(worker: Worker) -> Iterator[None]:
    stop = threading.Event()
    thread = threading.Thread(target=worker.run, args=(stop,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def embedded_rate(paths: Sequence[Path], settings: Settings, folder: Path) -> float:
    """Verdicts a second, from the first poll that brings records to the last verdict in the log."""
    worker = build_embedded_worker(settings, folder)
    with closing(open_embedded_topics(settings, folder)) as topics:
        topics.append([Output(settings.kafka.topics.images, value, key) for key, value in file_events(paths)])
        with running(worker):
            started = first_poll(worker)
            while sum(topics.ends(settings.kafka.topics.verdicts).values()) < len(paths):
                time.sleep(0.02)
            return len(paths) / (time.perf_counter() - started)


def first_poll(worker: Worker) -> float:
    """Waits for the worker to read its first records; the time when it did."""
    while not worker.metrics.records_polled._value.get():
        time.sleep(0.001)
    return time.perf_counter()


def publish(settings: KafkaSettings, events: Sequence[tuple[bytes, bytes]]) -> None:
    producer = KafkaProducer(**connection_options(settings), linger_ms=20, batch_size=256 * 1024)
    for key, value in events:
        producer.send(settings.topics.images, key=key, value=value)
    producer.flush()
    producer.close()


def through_kafka(count: int, settings: Settings) -> float:
    """Verdicts a second, from the first poll that brings records until all are committed with their verdicts."""
    worker = build_worker(settings)
    with closing(KafkaAdminClient(**connection_options(settings.kafka))) as admin, running(worker):
        started = first_poll(worker)
        # Asking the broker takes the interpreter's time: not before all have been read.
        while worker.metrics.records_polled._value.get() < count or committed(admin, settings.kafka) < count:
            time.sleep(0.02)
        seconds = time.perf_counter() - started
    with closing(open_reader(settings.kafka, auto_offset_reset="earliest", consumer_timeout_ms=2000)) as consumer:
        consumer.assign(partitions_of(consumer, settings.kafka.topics.verdicts, settings.kafka))
        verdicts = sum(1 for _ in consumer)
    if verdicts != count:
        raise RuntimeError(f"{verdicts} verdicts for {count} events")
    return count / seconds


def committed(admin: KafkaAdminClient, settings: KafkaSettings) -> int:
    """How many records the group has committed; the topics of this benchmark begin at 0 and have no gaps."""
    (offsets,) = admin.list_group_offsets({settings.group_id: None}).values()
    return sum(max(0, position.offset) for position in offsets.values())


def kafka_settings(base: Settings, kafka: KafkaServer, cache: RedisServer, name: str) -> Settings:
    topics = {topic: f"{name}.{topic}" for topic in WORKER_TOPICS}
    settings = base.model_copy(
        update={
            "kafka": KafkaSettings(bootstrap_servers=kafka.bootstrap_servers, group_id=name, topics=topics),  # type: ignore[arg-type]
            "redis": RedisSettings(url=SecretStr(cache.url)),
        }
    )
    create_topics(settings.kafka, partitions=PARTITIONS, replication_factor=1)
    return settings


def kafka_rate(paths: Sequence[Path], settings: Settings) -> float:
    publish(settings.kafka, file_events(paths))
    return through_kafka(len(paths), settings)


def measure(images: int, rounds: int) -> dict[str, list[float]]:
    """How much a second of each kind of run, round by round."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jpegs = folder / "jpegs"
        jpegs.mkdir()
        console.print(f"making {images} images …")
        paths = distinct_jpegs(jpegs, images)
        base = Settings(files=FileSettings(roots=(jpegs,)))
        kafka, cache = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        kafka.start()
        cache.start()
        try:
            results: dict[str, list[float]] = {}
            for turn in range(rounds):
                steps: dict[str, Callable[[], float]] = {
                    "decode alone": lambda: decode_rate(paths, base),
                    "engine alone": lambda: engine_rate(paths, base),
                    "embedded": lambda turn=turn: embedded_rate(paths, base, folder / f"data{turn}"),
                    "kafka": lambda turn=turn: kafka_rate(paths, kafka_settings(base, kafka, cache, f"pipeline{turn}")),
                }
                for name, step in steps.items():
                    with redis.Redis.from_url(cache.url) as client:
                        client.flushall()
                    results.setdefault(name, []).append(step())
                    console.print(f"round {turn + 1}: {name}: {results[name][-1]:,.0f} a second")
        finally:
            kafka.stop()
            cache.stop()
    return results


def run(options: Options) -> None:
    images, rounds = (40, 1) if options.short else (IMAGES, ROUNDS)
    measured = measure(images, rounds)
    stages = measured["decode alone"], measured["engine alone"]
    ratios = {
        "embedded / slowest stage alone": median_ratio(measured["embedded"], *stages),
        "kafka / slowest stage alone": median_ratio(measured["kafka"], *stages),
    }
    speeds = {name: statistics.median(values) for name, values in measured.items()}
    rates = Table("what", "a second (median)")
    for name, value in speeds.items():
        rates.add_row(name, f"{value:,.1f}")
    shares = Table("ratio (median)", "measured", "goal")
    for name, value in ratios.items():
        shares.add_row(name, f"{value:.2f}", f"{GOALS[name]:.2f}")
    report = {
        "measured_on": machine("openvino", "kafka-python", "redis"),
        "images": images,
        "rounds": rounds,
        "per_second": {name: round(value, 1) for name, value in speeds.items()},
        "ratios": {name: {"measured": round(value, 3), "goal": GOALS[name]} for name, value in ratios.items()},
    }
    publish_results("pipeline", options, report, [rates, shares], plot(ratios))


def plot(ratios: Mapping[str, float]) -> str:
    values = {f"{name} (goal {GOALS[name]})": value for name, value in ratios.items()}
    return bar_chart("Pipelines beside what bounds them", "ratio of rates", values)


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
