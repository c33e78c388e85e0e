"""How much of the slowest stage's speed the Ray Serve applications keep, reading Kafka; all in one run.

    python -m ops.benchmarks.serve_benchmark [--short] [--out FOLDER]

Alone: decoding with views, and the engine with heads, each on all processors. Then the engine and the intake as Serve
applications on a Ray of this machine, one replica each, with real Kafka and Redis. Their rate counts from the first
verdicts that a consumer sees until the last, so that starting replicas is left out and emptying them is not.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
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
from ops.benchmarks.plot import bars
from ops.benchmarks.results import Options, console, machine, option_parser
from ops.benchmarks.results import publish as publish_results
from ops.dev.servers import KafkaServer, RedisServer
from worker.apps.engine import EngineArguments
from worker.apps.engine import build as build_engine
from worker.apps.intake import IntakeArguments
from worker.apps.intake import build as build_intake
from worker.intake.kafka_connection import connection_options
from worker.settings import FileSettings, Settings

IMAGES = 1200
ROUNDS = 2
GOAL = 0.75
STORE_BYTES = 512 * 1024 * 1024
PATIENCE_SECONDS = 300.0


@contextmanager
def local_ray() -> Iterator[None]:
    """A Ray of this process alone, that tells nobody of itself and writes nothing into the user's home."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        serve.start(proxy_location="Disabled")
        yield
    finally:
        serve.shutdown()
        ray.shutdown()


def serve_rate(paths: list[Path], settings: Settings) -> float:
    """Verdicts a second of the applications. Raises TimeoutError when they do not come."""
    publish(settings.kafka, file_events(paths))
    given: dict[str, Any] = settings.model_dump(mode="json", include={"kafka", "files"}, exclude_unset=True)
    given["redis"] = {"url": settings.redis.url.get_secret_value()}
    serve.run(build_engine(EngineArguments(settings=given)), name="engine", route_prefix=None)
    consumer = KafkaConsumer(
        settings.kafka.topics.verdicts,
        **connection_options(settings.kafka),
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        max_poll_records=5000,
    )
    with closing(consumer):
        serve.run(build_intake(IntakeArguments(settings=given)), name="intake", route_prefix=None)
        started, before, seen = 0.0, 0, 0
        give_up = time.perf_counter() + PATIENCE_SECONDS
        while seen < len(paths):
            seen += sum(map(len, consumer.poll(timeout_ms=50).values()))
            if seen and not started:
                started, before = time.perf_counter(), seen
            if time.perf_counter() > give_up:
                raise TimeoutError(f"{seen} of {len(paths)} verdicts within {PATIENCE_SECONDS:.0f} s")
        rate = (seen - before) / (time.perf_counter() - started) if seen > before else 0.0
    serve.delete("intake")
    serve.delete("engine")
    return rate


def run(options: Options) -> None:
    images, rounds = (60, 1) if options.short else (IMAGES, ROUNDS)
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        jpegs = folder / "jpegs"
        jpegs.mkdir()
        paths = distinct_jpegs(jpegs, images)
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
                    for name, rate in (
                        ("decode alone", decode_rate(paths, base)),
                        ("engine alone", engine_rate(paths, base)),
                        ("Kafka + Ray Serve", serve_rate(paths, settings)),
                    ):
                        rates.setdefault(name, []).append(rate)
                        console.print(f"round {turn + 1}: {name}: {rate:,.1f} images a second")
        finally:
            kafka.stop()
            cache.stop()
    medians = {name: statistics.median(each) for name, each in rates.items()}
    slowest = min(medians["decode alone"], medians["engine alone"])
    ratio = medians["Kafka + Ray Serve"] / slowest
    table = Table("what", "images a second (median)")
    for name, value in medians.items():
        table.add_row(name, f"{value:,.1f}")
    table.add_row("Kafka + Ray Serve / slowest stage alone", f"{ratio:.2f} (goal {GOAL})", style="bold")
    report = {
        "measured_on": machine("ray", "openvino", "kafka-python"),
        "images": images,
        "rounds": rounds,
        "per_second": {name: round(value, 1) for name, value in medians.items()},
        "ratio": {"measured": round(ratio, 3), "goal": GOAL},
    }
    publish_results("serve", options, report, [table], bars("Kafka + Ray Serve", "images a second", medians))


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
