"""Runs batches through the engine and the heads, several at a time, off the pipeline's thread."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

import numpy as np
import structlog
from numpy.typing import NDArray

from schemas import Scores
from worker.cache.values import CachedScore
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

    def check(self, report: Callable[[Exception | None], None]) -> None:
        """Runs a blank image through the engine; reports what it failed with."""
        self._threads.submit(lambda: report(self._check()))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _run(self, batch: list[Prepared[J]], report: Callable[[ScoredBatch[J] | FailedBatch[J]], None]) -> None:
        try:
            started = time.perf_counter()
            with _traced(batch):
                features = self._infer(batch)
            scores = self._model.heads.score(features)
            seconds = time.perf_counter() - started
            results = _results(batch, scores, _packed(features, len(scores)))
        except Exception as error:  # noqa: BLE001  # a backend may raise anything; the images must be accounted for
            report(self._failed(batch, error))
            return
        self._metrics.stage_seconds.labels("engine").observe(seconds)
        self._metrics.batch_size.observe(len(batch))
        report(ScoredBatch(batch, results, seconds * 1000))
        self._cache.put({prepared.key: result for prepared, result in zip(batch, results, strict=True)}, {})

    def _infer(self, batch: list[Prepared[J]]) -> Features:
        """One row for each image, and for each sampled frame of an animation; animations may need several calls."""
        rows = sum(prepared.rows for prepared in batch)
        views = {
            name: np.concatenate([_with_rows(prepared, prepared.views[name]) for prepared in batch])
            for name in batch[0].views
        }
        prompts = None
        if self._judges_prompts:
            prompts = [prepared.job.event.prompt for prepared in batch for _ in range(prepared.rows)]
        if rows == len(batch) or rows <= self._engine.max_batch:
            return self._engine.infer(views, prompts)
        parts = []
        for start in range(0, rows, self._engine.max_batch):
            part = slice(start, start + self._engine.max_batch)
            parts.append(
                self._engine.infer({name: view[part] for name, view in views.items()}, prompts and prompts[part])
            )
        return {tower: np.concatenate([features[tower] for features in parts]) for tower in parts[0]}

    def _failed(self, batch: list[Prepared[J]], error: Exception) -> FailedBatch[J]:
        if isinstance(error, EngineLost):
            return FailedBatch(batch, error, Fault.LOST)
        failure = self._check()
        if isinstance(failure, EngineLost):
            return FailedBatch(batch, failure, Fault.LOST)
        return FailedBatch(batch, error, Fault.ENGINE if failure else Fault.BATCH)

    def _check(self) -> Exception | None:
        """What the engine fails with on a blank image."""
        try:
            self._model.heads.score(self._engine.infer(blank_views(self._model.manifest.views)))
        except Exception as failure:  # noqa: BLE001  # as above
            log.warning("engine_check_failed", error=f"{type(failure).__name__}: {failure}")
            return failure
        return None


def _traced(batch: list[Prepared[J]]) -> AbstractContextManager[None]:
    """The engine's span in the trace of each event of the batch that has one."""
    traces = [prepared.job.trace for prepared in batch if prepared.job.trace is not None]
    if not traces:
        return nullcontext()
    from worker.telemetry.tracing import engine_spans  # loads OpenTelemetry

    return engine_spans(traces, len(batch))


def _with_rows(prepared: Prepared[J], view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return view[np.newaxis] if prepared.animation is None else view


def _results(
    batch: list[Prepared[J]], scores: Sequence[Scores], packed: Sequence[dict[str, bytes]]
) -> list[CachedScore]:
    """One for each image: rows of an animation become one."""
    results, start = [], 0
    for prepared in batch:
        stop = start + prepared.rows
        found, index = scores[start], 0
        if prepared.animation is not None:
            found, index = prepared.animation.combine(scores[start:stop])
        results.append(CachedScore(found, packed[start + index], prepared.provenance))
        start = stop
    if start != len(scores):
        raise ValueError(f"{len(scores)} scores for {start} rows")
    return results


def _packed(features: Features, count: int) -> list[dict[str, bytes]]:
    halves = {tower: values.astype("<f2") for tower, values in features.items() if tower != PROMPT}
    return [{tower: values[i].tobytes() for tower, values in halves.items()} for i in range(count)]
