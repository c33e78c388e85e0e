"""Runs batches through the engine and the heads, several at a time, off the loop's thread."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import structlog

from worker.cache.score_cache import CachedScore, ScoreCache
from worker.judging.job import Job
from worker.judging.prepare import Prepared
from worker.scoring.engine import PROMPT, Engine, Features, blank_views
from worker.scoring.model import Model
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class ScoredBatch(Generic[J]):
    batch: list[Prepared[J]]
    scores: list[CachedScore]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class FailedBatch(Generic[J]):
    """`engine_is_healthy` tells whether the engine could still judge a blank image right after: if so, the batch is to
    blame; if not, the engine is."""

    batch: list[Prepared[J]]
    error: Exception
    engine_is_healthy: bool


class BatchRunner(Generic[J]):
    """At most `batches_in_flight` batches at once. Results are reported on the thread that ran the batch."""

    def __init__(
        self, engine: Engine, model: Model, cache: ScoreCache, metrics: Metrics, *, batches_in_flight: int
    ) -> None:
        self._engine = engine
        self._model = model
        self._judges_prompts = model.manifest.judges_prompts
        self._cache = cache
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(batches_in_flight, thread_name_prefix="sluice-engine")

    def start(self, batch: list[Prepared[J]], report: Callable[[ScoredBatch[J] | FailedBatch[J]], None]) -> None:
        self._threads.submit(self._run, batch, report)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: list[Prepared[J]], report: Callable[[ScoredBatch[J] | FailedBatch[J]], None]) -> None:
        try:
            started = time.perf_counter()
            views = {name: np.stack([prepared.views[name] for prepared in batch]) for name in batch[0].views}
            prompts = [prepared.job.event.prompt for prepared in batch] if self._judges_prompts else None
            features = self._engine.infer(views, prompts)
            scores = self._model.heads.score(features)
            seconds = time.perf_counter() - started
            packed = _packed(features, len(batch))
            results = [CachedScore(s, f) for s, f in zip(scores, packed, strict=True)]
        except Exception as error:  # noqa: BLE001  # a backend may raise anything; the images must be accounted for
            report(FailedBatch(batch, error, self._is_healthy()))
            return
        self._metrics.stage_seconds.labels("engine").observe(seconds)
        self._metrics.batch_size.observe(len(batch))
        report(ScoredBatch(batch, results, seconds * 1000))
        self._cache.put({prepared.key: result for prepared, result in zip(batch, results, strict=True)}, {})

    def _is_healthy(self) -> bool:
        try:
            self._model.heads.score(self._engine.infer(blank_views(self._model.manifest.views)))
        except Exception as error:  # noqa: BLE001
            log.warning("engine_check_failed", error=f"{type(error).__name__}: {error}")
            return False
        return True


def _packed(features: Features, count: int) -> list[dict[str, bytes]]:
    halves = {tower: values.astype("<f2") for tower, values in features.items() if tower != PROMPT}
    return [{tower: values[i].tobytes() for tower, values in halves.items()} for i in range(count)]
