"""Runs the demo: samples, degraded copies and hostile files through the whole embedded path."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from schemas import DeadLetter, FailureReason, ReviewItem, Verdict
from worker.demo.errors import DemoFailed
from worker.demo.report.entry import ReportEntry
from worker.demo.report.tally import Tally
from worker.demo.traffic import DemoImage, Traffic, TrafficMaker, degraded_copies
from worker.images.decode import decode
from worker.images.thumbnail import thumbnail
from worker.intake.embedded import open_embedded_topics
from worker.intake.log import Output, Partition
from worker.intake.sqlite_topics import SqliteTopics
from worker.samples.degrade import DEGRADATIONS
from worker.samples.sample import SAMPLE_IMAGES, load_samples
from worker.settings import FileSettings, Settings, TopicSettings
from worker.wiring import Worker, build_embedded_worker

DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.05
KEPT = 1000


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What came out: counts of verdicts, and of what stands in the review and dead-letter topics."""

    tally: Tally
    queues: Counter[str]
    dead: Counter[FailureReason]
    ignored: int
    seconds: float
    model: str
    policy: str


Progress = Callable[[str, int, int], None]
"""Takes what is being done, how much of it is done, and how much there is."""


def run_demo(settings: Settings, data: Path, progress: Progress) -> DemoResult:
    """Judges the demo's events in embedded mode below `data`. Raises DemoFailed and LogError."""
    folder = (data / "images").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = settings.model_copy(update={"files": FileSettings(roots=(SAMPLE_IMAGES, folder))})
    samples = load_samples()
    copies = []
    for copy in degraded_copies(samples, folder):
        copies.append(copy)
        progress("spoiling copies", len(copies), len(DEGRADATIONS) * len(samples))
    traffic = TrafficMaker().make(samples, copies, folder)
    with closing(open_embedded_topics(settings, data)) as topics:
        names = settings.kafka.topics
        review, dead = topics.ends(names.review), topics.ends(names.dead)
        started = time.perf_counter()
        verdicts = _judged(build_embedded_worker(settings, data), topics, names, traffic, progress)
        seconds = time.perf_counter() - started
        queues = Counter(ReviewItem.model_validate_json(value).queue for value in _values(topics, review))
        reasons = Counter(DeadLetter.model_validate_json(value).failure.reason for value in _values(topics, dead))
    tally = Tally(KEPT)
    for verdict in verdicts:
        tally.add(_entry(verdict, traffic.pictures.get(verdict.event_id), settings.images.max_pixels))
    ignored = len(traffic.first.records) + len(traffic.second.records) - len(verdicts)
    return DemoResult(tally, queues, reasons, ignored, seconds, verdicts[0].model, verdicts[0].policy)


def _judged(
    worker: Worker, topics: SqliteTopics, names: TopicSettings, traffic: Traffic, progress: Progress
) -> Sequence[Verdict]:
    """Runs the worker until every event of both waves has its verdict.

    A run that was broken off may have left events behind; their verdicts are not ours.
    """
    verdicts: list[Verdict] = []
    positions, begin = topics.ends(names.verdicts), topics.ends(names.images)
    expected = 0
    with _running(worker) as check:
        for wave in (traffic.first, traffic.second):
            topics.append([Output(names.images, value, key) for key, value in wave.records])
            expected += wave.verdicts
            deadline = time.monotonic() + DEADLINE_SECONDS
            while len(verdicts) < expected:
                for value in _values(topics, positions):
                    verdict = Verdict.model_validate_json(value)
                    if verdict.source.offset >= begin[Partition(verdict.source.topic, verdict.source.partition)]:
                        verdicts.append(verdict)
                progress("judging", len(verdicts), traffic.first.verdicts + traffic.second.verdicts)
                check()
                if time.monotonic() > deadline:
                    raise DemoFailed(f"only {len(verdicts)} of {expected} verdicts arrived in {DEADLINE_SECONDS:.0f} s")
                time.sleep(POLL_SECONDS)
    return verdicts


@contextmanager
def _running(worker: Worker) -> Iterator[Callable[[], None]]:
    """Runs the worker beside the caller, who is given a function that raises when the worker has ended by itself."""
    stop = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="worker") as pool:
        ended = pool.submit(worker.run, stop)

        def check() -> None:
            if ended.done():
                ended.result()
                raise DemoFailed("the worker ended before all events were judged")

        try:
            yield check
        finally:
            stop.set()
    ended.result()


def _values(topics: SqliteTopics, positions: dict[Partition, int]) -> Iterator[bytes]:
    """What was appended to a topic since it ended at `positions`."""
    while records := topics.read(positions):
        for record in records:
            positions[record.partition] = record.offset + 1
            yield record.value or b""


def _entry(verdict: Verdict, picture: DemoImage | None, max_pixels: int) -> ReportEntry:
    picture = picture or DemoImage("a malformed event")
    small = None
    if picture.path is not None and verdict.failure is None:
        small = thumbnail(decode(picture.path.read_bytes(), max_pixels=max_pixels))
    return ReportEntry(
        picture.name,
        verdict.route,
        verdict.scores,
        verdict.failure,
        small,
        verdict.cached,
        picture.generator,
        picture.human,
        picture.original,
        picture.degradation,
        verdict.provenance,
    )
