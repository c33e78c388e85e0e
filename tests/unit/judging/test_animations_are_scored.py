"""An animation is scored by its frames, in one batch."""

import io
import threading
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry

from schemas import ImageEvent, Scores
from worker.cache.values import ScoreKey
from worker.images.decode import DecodeLimits
from worker.images.decoded_views import ThreadDecoder
from worker.images.fetch import FetchedImage
from worker.judging.animation import SampledFrames
from worker.judging.batch_runner import BatchRunner, ScoredBatch
from worker.judging.prepare import Prepared, Preparer
from worker.judging.single_flight import SingleFlight
from worker.telemetry.metrics import Metrics
from worker.view import ViewSpec

VIEWS = {"coarse": ViewSpec(size=16, resize="squash", mean=(0, 0, 0), std=(1, 1, 1))}
PATIENCE = 60.0
FRAMES = [
    Scores(quality=4.0, anchors=(0.0, 0.1, 0.2, 0.3, 0.4), coarse_share=0.2),
    Scores(quality=2.0, anchors=(0.4, 0.3, 0.2, 0.1, 0.0), coarse_share=0.4),
    Scores(quality=3.0, anchors=(0.2, 0.2, 0.2, 0.2, 0.2), coarse_share=0.6),
]


def test_the_worst_frame_stands_for_the_animation() -> None:
    scores, index = SampledFrames(20, (0, 10, 19)).combine(FRAMES)
    assert scores == FRAMES[1].model_copy(update={"frames": 20, "worst_frame": 10})
    assert index == 1


def test_the_mean_of_the_frames_tells_the_worst_too() -> None:
    scores, index = SampledFrames(20, (0, 10, 19), "mean").combine(FRAMES)
    assert (scores.quality, scores.frames, scores.worst_frame, index) == (3.0, 20, 10, 1)
    assert scores.anchors == pytest.approx((0.2, 0.2, 0.2, 0.2, 0.2))
    assert scores.coarse_share == pytest.approx(0.4)
    assert scores.correspondence is None


def test_the_first_frame_may_decide_and_the_worst_is_told() -> None:
    scores, index = SampledFrames(20, (0, 10, 19), "first").combine(FRAMES)
    assert (scores.quality, scores.worst_frame, index) == (4.0, 10, 0)


class BrightnessEngine:
    """Gives the mean of each row as its feature, and keeps the sizes and prompts of its batches."""

    max_batch = 4

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[str | None]]] = []

    def infer(
        self, views: Mapping[str, NDArray[np.uint8]], prompts: Sequence[str | None] | None = None
    ) -> Mapping[str, NDArray[np.float32]]:
        view = views["coarse"]
        assert len(view) <= self.max_batch
        self.batches.append((len(view), list(prompts or [])))
        return {"coarse": view.reshape(len(view), -1).mean(axis=1, keepdims=True).astype(np.float32)}


class Store:
    def key(self, content_hash: str, prompt: str | None) -> ScoreKey:
        return ScoreKey(content_hash, prompt)

    def get(self, keys: Sequence[ScoreKey]) -> list[None]:
        return [None] * len(keys)

    def put(self, *_: object) -> None:
        """Keeps nothing."""


class Job:
    def __init__(self, data: bytes, prompt: str) -> None:
        self.event = ImageEvent.model_validate(
            {
                "id": "1",
                "occurred_at": "2026-01-01T00:00:00Z",
                "prompt": prompt,
                "image": {"kind": "inline", "bytes": ""},
            }
        )
        self.data = data
        self.engine_failures = 0
        self.trace = None
        self.fetch_ms = self.decode_ms = 0.0

    def fetched(self, content_hash: str) -> None:
        self.content_hash = content_hash


def encoded(*greys: int) -> bytes:
    first, *rest = [Image.new("L", (20, 20), grey) for grey in greys]
    buffer = io.BytesIO()
    first.save(buffer, "PNG", save_all=bool(rest), append_images=rest)
    return buffer.getvalue()


def scored(jobs: list[Job]) -> tuple[list[Any], list[tuple[int, list[str | None]]]]:
    store: Any = Store()
    prepared: list[Prepared[Any]] = []
    for job in jobs:
        fetcher: Any = SimpleNamespace(fetch=lambda _reference, data=job.data: FetchedImage(data))
        found = Preparer(fetcher, store, ThreadDecoder(DecodeLimits(10_000), VIEWS)).prepare(job, SingleFlight())
        assert isinstance(found, Prepared)
        prepared.append(found)
    engine = BrightnessEngine()
    heads = SimpleNamespace(
        score=lambda features: [Scores(quality=1 + 4 * float(row[0]) / 255) for row in features["coarse"]]
    )
    model: Any = SimpleNamespace(manifest=SimpleNamespace(views=VIEWS, judges_prompts=True), heads=heads)
    runner: BatchRunner[Any] = BatchRunner(
        engine,
        model,
        store,
        Metrics(CollectorRegistry()),
        batches_in_flight=1,  # type: ignore[arg-type]
    )
    done, results = threading.Event(), []

    def report(result: object) -> None:
        results.append(result)
        done.set()

    runner.start(prepared, report)
    assert done.wait(PATIENCE)
    runner.close()
    (batch,) = results
    assert isinstance(batch, ScoredBatch), batch
    return batch.scores, engine.batches


def test_frames_and_images_share_batches_and_each_keeps_its_own_score() -> None:
    jobs = [Job(encoded(200), "a"), Job(encoded(250, 20, 100), "b"), Job(encoded(50), "c")]
    scores, batches = scored(jobs)
    assert [round(found.scores.quality, 2) for found in scores] == [
        pytest.approx(1 + 4 * grey / 255, abs=0.01) for grey in (200, 20, 50)
    ]
    assert [(found.scores.frames, found.scores.worst_frame) for found in scores] == [(1, None), (3, 1), (1, None)]
    assert [np.frombuffer(found.features["coarse"], "<f2")[0] for found in scores] == [200, 20, 50]
    assert batches == [(4, ["a", "b", "b", "b"]), (1, ["c"])], "no batch is larger than the engine takes"


def test_an_animation_alone_is_one_batch() -> None:
    scores, batches = scored([Job(encoded(250, 20, 100), "b")])
    assert batches == [(3, ["b", "b", "b"])]
    assert scores[0].scores.worst_frame == 1
