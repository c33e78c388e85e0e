"""What an image costs on its way, stage by stage: the processor's time of each, alone, on one thread.

    python -m ops.benchmarks.stages_benchmark [--short] [--out FOLDER]

The stages are the product's own functions, in the order in which the worker calls them; the engine runs batches of the
settings' size on one processor. Sums leave out what a stage waits for, and what threads cost each other.
"""

import hashlib
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.table import Table

from ops.benchmarks.inputs import stack
from ops.benchmarks.results import Options, machine, option_parser, publish
from schemas import FileReference, ImageEvent
from worker.charts import bar_chart
from worker.images.decode import decode
from worker.images.fetch import build_fetcher
from worker.images.views import make_views
from worker.intake.log import Partition, Record
from worker.intake.parse import parse
from worker.outbox import Identity, Outbox
from worker.policy import load_policy
from worker.samples.sample import SAMPLE_IMAGES
from worker.scoring.model import load_model
from worker.scoring.openvino_engine import OpenVinoEngine
from worker.settings import FileSettings, Settings

ROUNDS = 5
SOURCE: Any = {"topic": "images.in", "partition": 0, "offset": 0, "index": 0}
TIMINGS: Any = {"fetch_ms": 1.0, "decode_ms": 1.0, "engine_ms": 1.0, "total_ms": 1.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage's processor time for one image: the median over the rounds, in milliseconds, and its share of the sum."""

    name: str
    processor_ms: float
    share: float


class Walk:
    """Takes images from record to verdict, a stage at a time, each stage over all of them."""

    def __init__(self, rounds: int, images: int) -> None:
        self._rounds = rounds
        self._images = images
        self.spent: dict[str, float] = {}

    def stage(self, name: str, work: Callable[[], Sequence[Any]]) -> Sequence[Any]:
        """What the work gives; its time, after one run that warms up, is kept under the name."""
        results = work()
        times = []
        for _ in range(self._rounds):
            started = time.process_time()
            results = work()
            times.append(time.process_time() - started)
        self.spent[name] = 1000 * statistics.median(times) / self._images
        return results


def measure(options: Options) -> list[Stage]:
    settings = Settings(files=FileSettings(roots=(SAMPLE_IMAGES,)))
    model = load_model(settings.model)
    policy = load_policy(None)
    identity = Identity(model=model.manifest.digest, policy=policy.digest)
    outbox = Outbox(settings.kafka.topics, identity, max_message_bytes=1 << 23, now=lambda: datetime.now(UTC))
    files = sorted(SAMPLE_IMAGES.glob("*.jpg"))[: 2 if options.short else None]
    size = settings.intake.batch_size
    records = [_record(offset, str(file)) for offset, file in enumerate(files)]
    walk = Walk(1 if options.short else ROUNDS, len(files))
    with closing(build_fetcher(settings)) as fetcher, closing(OpenVinoEngine(model, threads=1)) as engine:
        parsed = walk.stage("parse the event", lambda: [parse(record).events[0] for record in records])
        fetched = walk.stage("fetch (a file)", lambda: [fetcher.fetch(event.image).data for event in parsed])
        walk.stage("hash", lambda: [hashlib.sha256(data).hexdigest() for data in fetched])
        pixels = walk.stage("decode", lambda: [decode(data, max_pixels=settings.images.max_pixels) for data in fetched])
        views = walk.stage("views", lambda: [make_views(image, model.manifest.views) for image in pixels])
        starts = range(0, len(views), size)
        batches = walk.stage("form batches", lambda: [stack(views[start : start + size]) for start in starts])
        features = walk.stage("engine", lambda: [engine.infer(batch) for batch in batches])
        scores = walk.stage("heads", lambda: [score for each in features for score in model.heads.score(each)])
        judged = list(zip(parsed, scores, strict=True))
        routes = walk.stage("policy", lambda: [policy.route(event, score) for event, score in judged])
        packed = {name: bytes(1024) for name in features[0]}
        walk.stage(
            "write verdict and item",
            lambda: [
                outbox.scored(event, SOURCE, f"sha256:{'0' * 64}", score, packed, route, TIMINGS, cached=False)
                for (event, score), route in zip(judged, routes, strict=True)
            ],
        )
    total = sum(walk.spent.values())
    return [Stage(name, round(spent, 4), round(spent / total, 4)) for name, spent in walk.spent.items()]


def _record(offset: int, path: str) -> Record:
    event = ImageEvent(id=f"event-{offset}", occurred_at=datetime.now(UTC), image=FileReference(path=path))
    value = event.model_dump_json(by_alias=True).encode()
    return Record(Partition("images.in", 0), offset, value, None, (), 0)


def run(options: Options) -> None:
    stages = measure(options)
    table = Table("stage", "CPU ms an image", "share", title="What an image of 512 px costs")
    table.columns[1].justify = table.columns[2].justify = "right"
    for stage in stages:
        table.add_row(stage.name, f"{stage.processor_ms:.3f}", f"{stage.share:.1%}")
    total = sum(stage.processor_ms for stage in stages)
    table.add_row("sum", f"{total:.3f}", f"{1000 / total:,.0f} images/s a processor", style="bold")
    report = {"measured_on": machine("openvino", "pillow", "numpy"), "stages": [asdict(stage) for stage in stages]}
    plot = bar_chart("Stages", "CPU milliseconds an image", {stage.name: stage.processor_ms for stage in stages})
    publish("stages", options, report, [table], plot)


def main() -> None:
    given = option_parser(__doc__).parse_args()
    run(Options(given.short, given.out))


if __name__ == "__main__":
    main()
