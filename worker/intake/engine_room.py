"""Runs batches through the engine and the heads, several at a time, off the loop's thread."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import structlog

from worker.cache.score_cache import CachedScore, ScoreCache
from worker.intake.prepare import Prepared
from worker.scoring.engine import PROMPT, Engine, Features, Views
from worker.scoring.model import Model
from worker.telemetry.metrics import Metrics
from worker.view import ViewSpec

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class BatchScored:
    batch: list[Prepared]
    scores: list[CachedScore]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class BatchFailed:
    """`engine_is_well` tells whether the engine could still judge a blank image right after: if so, the batch is to
    blame; if not, the engine is."""

    batch: list[Prepared]
    error: Exception
    engine_is_well: bool


class EngineRoom:
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

    def start(self, batch: list[Prepared], report: Callable[[BatchScored | BatchFailed], None]) -> None:
        self._threads.submit(self._run, batch, report)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: list[Prepared], report: Callable[[BatchScored | BatchFailed], None]) -> None:
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
            report(BatchFailed(batch, error, self._is_well()))
            return
        self._metrics.stage_seconds.labels("engine").observe(seconds)
        self._metrics.batch_size.observe(len(batch))
        report(BatchScored(batch, results, seconds * 1000))
        self._cache.put({prepared.key: result for prepared, result in zip(batch, results, strict=True)}, {})

    def _is_well(self) -> bool:
        try:
            self._model.heads.score(self._engine.infer(blank_views(self._model.manifest.views)))
        except Exception as error:  # noqa: BLE001
            log.warning("engine_is_unwell", error=f"{type(error).__name__}: {error}")
            return False
        return True


def blank_views(views: Mapping[str, ViewSpec]) -> Views:
    """A batch of one black image, for warming an engine up and for asking whether it is well."""
    return {name: np.zeros((1, *view.shape), np.uint8) for name, view in views.items()}


def _packed(features: Features, count: int) -> list[dict[str, bytes]]:
    halves = {tower: values.astype("<f2") for tower, values in features.items() if tower != PROMPT}
    return [{tower: values[i].tobytes() for tower, values in halves.items()} for i in range(count)]
