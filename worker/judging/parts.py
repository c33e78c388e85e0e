"""What a pipeline works with."""

import random
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from worker.judging.batch_runner import BatchRunner
from worker.judging.job import Job
from worker.judging.lookup import ScoreStore
from worker.judging.prepare import Preparer
from worker.judging.router import PolicyRouter
from worker.telemetry.metrics import Metrics

J = TypeVar("J", bound=Job)


@dataclass(frozen=True, slots=True)
class PipelineParts(Generic[J]):
    """What a pipeline works with. `clock` is monotonic, in seconds."""

    preparer: Preparer[J]
    batches: BatchRunner[J]
    router: PolicyRouter
    cache: ScoreStore
    prepare_pool: Executor
    metrics: Metrics
    clock: Callable[[], float]
    rng: random.Random
