"""Runs batches through the engine and the heads, several at a time, off the pipeline's thread."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np
import structlog

from worker.cache.score_cache import CachedScore
from worker.judging.job import Job
from worker.judging.lookup import ScoreStore
from worker.judging.prepare import Prepared
from worker.scoring.engine import PROMPT, Engine, EngineLost, Features, blank_views
from worker.scoring.model import Model
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class ScoredBatch(Generic[J]):
    batch: list[Prepared[J]]
    scores: list[CachedScore]
    milliseconds: float


class Fault(Enum):
    """Whose fault a failed batch is."""

    BATCH = "batch"
    """The engine judges a blank image right after."""
    ENGINE = "engine"
    """It does not."""
    LOST = "lost"
    """It never will in this process."""


@dataclass(frozen=True, slots=True)
class FailedBatch(Generic[J]):
    batch: list[Prepared[J]]
    error: Exception
    fault: Fault


class BatchRunner(Generic[J]):
    """At most `batches_in_flight` batches at once. Results are reported on the thread that ran the batch."""

    def __init__(
        self, engine: Engine, model: Model, cache: ScoreStore, metrics: Metrics, *, batches_in_flight: int
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
            report(self._failed(batch, error))
            return
        self._metrics.stage_seconds.labels("engine").observe(seconds)
        self._metrics.batch_size.observe(len(batch))
        report(ScoredBatch(batch, results, seconds * 1000))
        self._cache.put({prepared.key: result for prepared, result in zip(batch, results, strict=True)}, {})

    def _failed(self, batch: list[Prepared[J]], error: Exception) -> FailedBatch[J]:
        if isinstance(error, EngineLost):
            return FailedBatch(batch, error, Fault.LOST)
        try:
            self._model.heads.score(self._engine.infer(blank_views(self._model.manifest.views)))
        except EngineLost as lost:
            return FailedBatch(batch, lost, Fault.LOST)
        except Exception as failure:  # noqa: BLE001  # as above
            log.warning("engine_check_failed", error=f"{type(failure).__name__}: {failure}")
            return FailedBatch(batch, error, Fault.ENGINE)
        return FailedBatch(batch, error, Fault.BATCH)


def _packed(features: Features, count: int) -> list[dict[str, bytes]]:
    halves = {tower: values.astype("<f2") for tower, values in features.items() if tower != PROMPT}
    return [{tower: values[i].tobytes() for tower, values in halves.items()} for i in range(count)]
