"""A member of the intake on stand-ins: a scripted log, store and engine."""

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from prometheus_client import CollectorRegistry

from schemas import ImageReference, InlineReference, Scores
from tests.unit.intake.pictures import png
from worker.cache.client import connect_embedded
from worker.cache.score_cache import ScoreCache
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.fetch import FetchedImage
from worker.images.provenance.reader import ProvenanceReader
from worker.intake.crash_markers import Marker, MarkerStore
from worker.intake.event_traces import EventTraces
from worker.intake.log import Lag, LogError, Output, Partition, Poll, Record
from worker.intake.member import Member, Parts
from worker.intake.tenant_memory import TenantMemory, TenantStore
from worker.intake.verdicts import VerdictWriter
from worker.judging.batch_runner import BatchRunner
from worker.judging.parts import PipelineParts
from worker.judging.prepare import Preparer
from worker.judging.router import PolicyRouter
from worker.outbox import Identity, Outbox
from worker.policy import load_policy
from worker.policy.watch import ActivePolicies
from worker.scoring.engine import PROMPT, Features, Prompts, Views
from worker.settings import FairnessSettings, IntakeSettings, TopicSettings
from worker.telemetry.cells import CellCounts
from worker.telemetry.metrics import Metrics
from worker.view import ViewSpec

IN = Partition("images.in", 0)
VIEWS = {"whole": ViewSpec(size=16, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))}
QUICK = IntakeSettings(
    batch_size=4,
    batch_wait_seconds=0.005,
    commit_interval_seconds=0.01,
    retry_base_seconds=0.005,
    retry_max_seconds=0.01,
    max_attempts=3,
    drain_seconds=2.0,
    prepare_threads=4,
    rebalance_seconds=0.5,
)


NOTHING_PUT_OFF = FairnessSettings(delay_seconds=3600)


class FakeLog:
    """Hands out scripted polls; commits into lists. Not thread-safe beyond what Log asks for."""

    def __init__(self, records: Sequence[Record], *, partitions: Sequence[Partition] = (IN,)) -> None:
        self.polls: list[Poll | LogError] = [Poll(assigned=frozenset(partitions))]
        self.waiting = list(records)
        self.outputs: list[Output] = []
        self.offsets: dict[Partition, int] = {}
        self.commits = 0
        self.paused: Set[Partition] = frozenset()
        self.released: set[Partition] = set()
        self.commit_errors: list[LogError] = []
        self.polled = 0
        self.closed = False
        self.problems: tuple[str, ...] = ()

    def poll(self, timeout_seconds: float) -> Poll:
        self.polled += 1
        if self.polls:
            happened = self.polls.pop(0)
            if isinstance(happened, LogError):
                raise happened
            return happened
        ready = [record for record in self.waiting if record.partition not in self.paused][:5]
        self.waiting = [record for record in self.waiting if record not in ready]
        if not ready and timeout_seconds:
            time.sleep(0.001)
        return Poll(ready)

    def pause(self, partitions: Set[Partition]) -> None:
        self.paused = partitions

    def release(self, partitions: Set[Partition]) -> None:
        self.released |= partitions

    def commit(self, outputs: Sequence[Output], offsets: Mapping[Partition, int]) -> None:
        self.commits += 1
        if self.commit_errors:
            raise self.commit_errors.pop(0)
        self.outputs.extend(outputs)
        self.offsets.update(offsets)

    def health_problems(self) -> tuple[str, ...]:
        return self.problems

    def notes(self) -> tuple[str, ...]:
        return ()

    def lag(self) -> Lag:
        return Lag({IN: len(self.waiting)})

    def close(self) -> None:
        self.closed = True

    def written(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(output.value) for output in self.outputs if output.topic == topic]

    @property
    def verdicts(self) -> list[dict[str, Any]]:
        return self.written("images.verdicts")


@dataclass
class FakeStore:
    """Answers by URL: bytes, or an exception to raise; a list is used up one by one."""

    answers: dict[str, Any] = field(default_factory=dict)
    fetched: Counter[str] = field(default_factory=Counter)

    def fetch(self, reference: ImageReference) -> FetchedImage:
        if isinstance(reference, InlineReference):
            return FetchedImage(reference.bytes)
        key = getattr(reference, "url", None) or getattr(reference, "key", "")
        self.fetched[key] += 1
        answer = self.answers[key]
        if isinstance(answer, list):
            answer = answer.pop(0) if len(answer) > 1 else answer[0]
        if callable(answer):
            answer = answer()
        if isinstance(answer, Exception):
            raise answer
        return FetchedImage(answer, etag="e1")

    def close(self) -> None: ...


@dataclass
class FakeEngine:
    """The feature of an image is its first pixel's red. `before` may raise or wait."""

    before: Callable[[np.ndarray[Any, Any]], None] = lambda reds: None
    batches: list[int] = field(default_factory=list)
    max_batch: int = 64

    def infer(self, views: Views, prompts: Prompts | None = None) -> Features:
        reds = views["whole"][:, 0, 0, 0]
        self.before(reds)
        self.batches.append(len(reds))
        features = {"coarse": reds.astype(np.float32)[:, None]}
        if prompts is not None:  # an image corresponds to its prompt as much as that is long
            lengths = [float("nan") if prompt is None else len(prompt) for prompt in prompts]
            features[PROMPT] = np.array(lengths, np.float32)[:, None]
        return features

    def close(self) -> None: ...


class FakeHeads:
    def score(self, features: Features) -> list[Scores]:
        scores = [Scores(quality=1.0 + 4.0 * float(red) / 255.0) for red in features["coarse"][:, 0]]
        if PROMPT in features:
            fits = [None if np.isnan(value) else float(value) for value in features[PROMPT][:, 0]]
            scores = [each.model_copy(update={"correspondence": fit}) for each, fit in zip(scores, fits, strict=True)]
        return scores


class NoMarkers:
    def read(self, partition: Partition) -> Marker | None:
        return None

    def write(self, partition: Partition, marker: Marker) -> None: ...

    def remove(self, partition: Partition) -> None: ...


@dataclass
class Bench:
    """A member on stand-ins, with its log, store and engine to look at."""

    log: FakeLog
    store: FakeStore = field(default_factory=FakeStore)
    engine: FakeEngine = field(default_factory=FakeEngine)
    settings: IntakeSettings = QUICK
    reads_prompts: bool = False
    markers: MarkerStore = field(default_factory=NoMarkers)
    process: str = "process-1"
    fairness: FairnessSettings = NOTHING_PUT_OFF
    provenance: ProvenanceReader = field(default_factory=ProvenanceReader)
    wall_clock: Callable[[], float] = time.time
    tenant_store: TenantStore | None = None
    traces: EventTraces | None = None

    def __post_init__(self) -> None:
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.redis = connect_embedded()
        cache = ScoreCache(
            self.redis,
            model_digest="sha256:" + "a" * 64,
            reads_prompts=self.reads_prompts,
            ttl_seconds=60,
            metrics=self.metrics,
            clock=time.monotonic,
            provenance=self.provenance.identity,
        )
        policy = load_policy(None)
        outbox = Outbox(
            TopicSettings(),
            Identity("sha256:" + "a" * 64, policy.digest),
            max_message_bytes=1_000_000,
            now=lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )
        model = cast(
            Any,
            SimpleNamespace(
                manifest=SimpleNamespace(views=VIEWS, judges_prompts=self.reads_prompts), heads=FakeHeads()
            ),
        )
        active = ActivePolicies(policy)
        router = PolicyRouter(lambda: active, self.metrics)
        self.parts = Parts(
            judging=PipelineParts(
                preparer=Preparer(
                    self.store, cache, ThreadDecoder(DecodeLimits(10_000), VIEWS), provenance=self.provenance
                ),
                batches=BatchRunner(
                    self.engine, model, cache, self.metrics, batches_in_flight=self.settings.batches_in_flight
                ),
                router=router,
                cache=cache,
                prepare_pool=ThreadPoolExecutor(4),
                metrics=self.metrics,
                clock=time.monotonic,
                rng=random.Random(7),
            ),
            markers=self.markers,
            process=self.process,
            writer=VerdictWriter(
                router,
                outbox,
                self.metrics,
                time.monotonic,
                CellCounts(self.metrics, tenants=2, generators=2, clock=lambda: 0.0),
            ),
            max_event_bytes=100_000,
            settings=self.settings,
            fairness=self.fairness,
            topics=TopicSettings(),
            tenants=TenantMemory(self.tenant_store, clock=time.monotonic, wall_clock=time.time),
            traces=self.traces,
            wall_clock=self.wall_clock,
        )
        self.member = Member(self.log, self.parts)

    def run_until(self, done: Callable[[], bool], seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        self.member.run(lambda: done() or time.monotonic() > deadline)
        assert done(), f"not done in {seconds} s: {self.log.offsets}, {len(self.log.verdicts)} verdicts"

    def run_to(self, offset: int) -> None:
        self.run_until(lambda: self.log.offsets.get(IN) == offset)


def event(name: str, image: Mapping[str, Any], **more: Any) -> bytes:
    return json.dumps(
        {"schema": "sluice.image-event/1", "id": name, "occurred_at": "2026-01-01T00:00:00Z", "image": image, **more}
    ).encode()


def http(name: str) -> dict[str, Any]:
    return {"kind": "http", "url": f"http://images/{name}"}


def s3(name: str, etag: str | None = None) -> dict[str, Any]:
    return {"kind": "s3", "bucket": "b", "key": name, **({"etag": etag} if etag else {})}


def records(*values: bytes | None) -> list[Record]:
    return [Record(IN, offset, value) for offset, value in enumerate(values)]


def http_bench(count: int, settings: IntakeSettings = QUICK, **answers: Any) -> Bench:
    """`count` events "0", "1", … of pictures that brighten; `answers` replace what the store says of some (`i3=…`)."""
    store = FakeStore({f"http://images/{i}": png(red=i * 5) for i in range(count)})
    store.answers.update({f"http://images/{name[1:]}": answer for name, answer in answers.items()})
    log = FakeLog(records(*(event(str(i), http(str(i))) for i in range(count))))
    return Bench(log, store, settings=settings)
