"""Runs one shard of a backfill to its end, or until it is stopped."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from worker.backfill.backfill_log import BackfillLog
from worker.backfill.listing import listed
from worker.backfill.request import BackfillRequest, BackfillState
from worker.backfill.result_folder import ResultFolder
from worker.cache.client import connect_embedded
from worker.intake.log import Log
from worker.scoring.engine import Engine
from worker.scoring.model import Model
from worker.scoring.open_store import open_store
from worker.settings import Settings
from worker.wiring import Worker

PART_SECONDS: Final = 5.0
"""How often a part is written, unless the settings say another `intake.commit_interval_seconds`."""
CACHE_ENTRIES: Final = 10_000
"""Scores that are remembered, for copies of the same image."""
POLL_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class BackfillOptions:
    """`output`: a folder or s3://bucket/prefix. `per_second`: the most images to begin in a second; None: no limit."""

    output: str
    per_second: float | None = None


def backfill(
    settings: Settings,
    request: BackfillRequest,
    options: BackfillOptions,
    model: Model,
    open_engine: Callable[[], Engine],
    stop: threading.Event,
    on_progress: Callable[[BackfillState], None] = lambda _state: None,
) -> BackfillState:
    """Judges the request's shard, from where an earlier run of it stopped. Returns how far it is.

    Images are judged by the worker that judges the stream, with its retries and its waiting for stores that are down;
    only its log is another. Raises BackfillError and RepositoryError for the folder, LogError where the bucket cannot
    be listed at first, EngineLost and PolicyError.
    """
    results = ResultFolder(open_store(options.output, settings.s3), request)
    if results.state.is_over:
        return results.state
    next(listed(request, settings.s3, results.state.after_key), None)  # a wrong name is an error now, not a retry later
    logs: list[BackfillLog] = []

    def open_log() -> Log:
        images = listed(request, settings.s3, results.state.after_key)
        verdicts = settings.kafka.topics.verdicts
        logs.append(BackfillLog(images, request, results, verdicts=verdicts, per_second=options.per_second))
        return logs[-1]

    own = _settings_of_run(settings)
    worker = Worker(own, open_log, connect_embedded(), open_engine(), model, cache_entries=CACHE_ENTRIES)
    ending = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="backfill") as pool:
        ended = pool.submit(worker.run, ending)
        try:
            while not (ended.done() or stop.is_set() or (logs and logs[-1].is_over)):
                ending.wait(POLL_SECONDS)
                on_progress(results.state)
        finally:
            ending.set()
    ended.result()
    if logs and logs[-1].is_over:
        results.finish()
    on_progress(results.state)
    return results.state


def _settings_of_run(settings: Settings) -> Settings:
    """Without what belongs to the live stream: retry and surplus topics, names, the port for metrics, shadow policies.
    Images wait for their store for as long as it is down."""
    intake: dict[str, object] = {"retry_delays_seconds": ()}
    if "commit_interval_seconds" not in settings.intake.model_fields_set:
        intake["commit_interval_seconds"] = PART_SECONDS
    return settings.model_copy(
        update={
            "intake": settings.intake.model_copy(update=intake),
            "fairness": settings.fairness.model_copy(update={"defer_surplus": False}),
            "telemetry": settings.telemetry.model_copy(update={"metrics_port": None}),
            "shadow_policies": {},
        }
    )
