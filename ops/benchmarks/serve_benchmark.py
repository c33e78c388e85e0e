"""How much of the slowest stage's speed the Ray Serve applications keep, reading Kafka; all in one run.

    python -m ops.benchmarks.serve_benchmark [--short] [--out FOLDER]

Alone: decoding with views, and the engine with heads, each on all processors. Then the engine and the intake as Serve
applications on a Ray of this machine, one replica each, with real Kafka and Redis, all on the same processors. The
replicas start and judge some images first; their rate counts from the first event published until a consumer that reads
what is committed has seen the last verdict. Beside it: the processors' time for an image, by process.
"""

import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import redis
from kafka import KafkaConsumer
from ray import serve
from rich.table import Table

from ops.benchmarks.pipeline_benchmark import (
    decode_rate,
    distinct_jpegs,
    engine_rate,
    file_events,
    kafka_settings,
    publish,
)
from ops.benchmarks.processes import processor_seconds
from ops.benchmarks.results import Options, console, machine, median_ratio, option_parser
from ops.benchmarks.results import publish as publish_results
from ops.dev.servers import KafkaServer, RedisServer
from worker.apps.engine import EngineArguments
from worker.apps.engine import build as build_engine
from worker.apps.intake import IntakeArguments
from worker.apps.intake import build as build_intake
from worker.charts import bar_chart
from worker.intake.kafka_connection import connection_options
from worker.settings import FileSettings, Settings

IMAGES = 1200
WARM_UP = 64
ROUNDS = 3
GOAL = 0.75
STORE_BYTES = 512 * 1024 * 1024
PATIENCE_SECONDS = 300.0
LOOPBACK = "127.0.0.2"
"""Not 127.0.0.1, in whose place Ray takes an address that others can reach."""


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this process alone, that tells nobody of itself and writes nothing into the user's home."""
    # Whoever reaches Ray's ports may run code, and they are open to all: they ask for a token, which is this run's own.
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
        _node_ip_address=LOOPBACK,
    )
    try:
        serve.start(proxy_location="Disabled")
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


@dataclass(frozen=True, slots=True)
class Served:
    """What the applications did: images a second, and of the processors' time, by process, ms for an image."""

    per_second: float
    processor_ms: dict[str, float]


def serve_rate(paths: Sequence[Path], settings: Settings) -> Served:
    """The first WARM_UP images are judged before the clock starts. Raises TimeoutError when verdicts do not come."""
    given: dict[str, Any] = settings.model_dump(mode="json", include={"kafka", "files"}, exclude_unset=True)
    given["redis"] = {"url": settings.redis.url.get_secret_value()}
    serve.run(build_engine(EngineArguments(settings=given)), name="engine", route_prefix=None)
    serve.run(build_intake(IntakeArguments(settings=given)), name="intake", route_prefix=None)
    events = file_events(paths)
    consumer = KafkaConsumer(
        settings.kafka.topics.verdicts,
        **connection_options(settings.kafka),
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=5000,
    )
    with closing(consumer):
        publish(settings.kafka, events[:WARM_UP])
        await_verdicts(consumer, WARM_UP)
        before, started = processor_seconds(), time.perf_counter()
        publish(settings.kafka, events[WARM_UP:])
        count = len(events) - WARM_UP
        await_verdicts(consumer, count)
        seconds, after = time.perf_counter() - started, processor_seconds()
    serve.delete("intake")
    serve.delete("engine")
    used = {name: 1000 * (spent - before.get(name, 0.0)) / count for name, spent in after.items()}
    return Served(count / seconds, used)


def await_verdicts(consumer: KafkaConsumer, count: int) -> None:
    """Raises TimeoutError, or RuntimeError for more verdicts than images."""
    seen, give_up = 0, time.perf_counter() + PATIENCE_SECONDS
    while seen < count:
        seen += sum(map(len, consumer.poll(timeout_ms=1000).values()))
        if time.perf_counter() > give_up:
            raise TimeoutError(f"{seen} of {count} verdicts within {PATIENCE_SECONDS:.0f} s")
    if seen > count:
        raise RuntimeError(f"{seen} verdicts for {count} images")


def measure(images: int, rounds: int) -> tuple[dict[str, list[float]], list[dict[str, float]]]:
    """Images a second of each round, and the processors' time of the applications."""
    rates: dict[str, list[float]] = {"decode alone": [], "engine alone": [], "Kafka + Ray Serve": []}
    used: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jpegs = folder / "jpegs"
        jpegs.mkdir()
        paths = distinct_jpegs(jpegs, WARM_UP + images)
        base = Settings(files=FileSettings(roots=(jpegs,)))
        kafka, cache = KafkaServer(folder / "kafka"), RedisServer(folder / "redis")
        kafka.start()
        cache.start()
        try:
            with local_ray():
                for turn in range(rounds):
                    settings = kafka_settings(base, kafka, cache, f"serve{turn}")
                    with redis.Redis.from_url(cache.url) as client:
                        client.flushall()
                    rates["decode alone"].append(decode_rate(paths[WARM_UP:], base))
                    rates["engine alone"].append(engine_rate(paths[WARM_UP:], base))
                    served = serve_rate(paths, settings)
                    rates["Kafka + Ray Serve"].append(served.per_second)
                    used.append(served.processor_ms)
                    told = ", ".join(f"{name} {each[-1]:,.1f}" for name, each in rates.items())
                    console.print(f"round {turn + 1}, images a second: {told}")
        finally:
            kafka.stop()
            cache.stop()
    return rates, used


def run(options: Options) -> None:
    images, rounds = (96, 1) if options.short else (IMAGES, ROUNDS)
    rates, used = measure(images, rounds)
    medians = {name: statistics.median(each) for name, each in rates.items()}
    ratio = median_ratio(rates["Kafka + Ray Serve"], rates["decode alone"], rates["engine alone"])
    table = Table("what", "images a second (median)")
    for name, value in medians.items():
        table.add_row(name, f"{value:,.1f}")
    table.add_row("Kafka + Ray Serve / slowest stage alone", f"{ratio:.2f} (goal {GOAL})", style="bold")
    medians_used = {name: statistics.median(each.get(name, 0.0) for each in used) for name in used[0]}
    spent = dict(sorted(medians_used.items(), key=lambda each: each[1], reverse=True))
    processes = Table("process", "processors' ms for an image (median)")
    for name, value in spent.items():
        processes.add_row(name, f"{value:.2f}")
    report = {
        "measured_on": machine("ray", "openvino", "kafka-python"),
        "images": images,
        "rounds": rounds,
        "per_second": {name: round(value, 1) for name, value in medians.items()},
        "ratio": {"measured": round(ratio, 3), "goal": GOAL},
        "processor_ms_an_image": {name: round(value, 2) for name, value in spent.items()},
    }
    plot = bar_chart("Kafka + Ray Serve beside its stages alone", "images a second", medians)
    publish_results("serve", options, report, [table, processes], plot)


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
