"""Runs a replay until it ends or is stopped."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from worker.cache.client import connect_embedded
from worker.intake.embedded import embedded_log
from worker.intake.kafka_client import open_kafka_log
from worker.intake.log import Log
from worker.intake.sqlite_log import SqliteLog
from worker.intake.topic_reader import TopicReader
from worker.judging.overload_watch import RecordedOverload
from worker.policy.frozen import frozen_policy
from worker.policy.overload import Overloaded
from worker.replay.comparison import past_overloads
from worker.replay.replay_log import ReplayLog, ReplayProgress
from worker.replay.window import ReplayRequest, ReplayWindow, finish, open_window
from worker.scoring.model import load_model
from worker.settings import Settings
from worker.wiring import EMBEDDED_CACHE_ENTRIES, Worker, open_engine

POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """`done` of `window.total` offsets are judged; `is_over` when it is all of them. `missed` left the topic before."""

    request: ReplayRequest
    window: ReplayWindow
    done: int
    is_over: bool
    missed: int


def replay(
    settings: Settings,
    data: Path | None,
    since: datetime,
    until: datetime,
    stop: threading.Event,
    on_progress: Callable[[ReplayRequest, int, int], None],
    open_topics: Callable[[], AbstractContextManager[TopicReader]],
) -> ReplayResult:
    """Judges the events of the images topic that came from `since` on and before `until` again, by the model and the
    policy of the settings, and writes the verdicts into the replay topic.

    The run has a consumer group of its own, `<group>-replay-<run>`, whose offsets are its progress: verdicts and
    offsets are committed together, so a run that was stopped or killed goes on where it was and repeats nothing.
    Several processes may share it; on the embedded log one works and the others wait. The live group, its cache, its
    review queue and its dead letters are not touched. Where the policy has overload rules, a review queue counts as
    overloaded for an event if its past verdict says so; `open_topics` reads these. Raises LogError, ManifestError,
    PolicyError.
    """
    with frozen_policy(settings, data) as (settings, policy):
        model = load_model(settings.model, settings.s3)
        request = ReplayRequest(settings.kafka.topics.images, since, until, model.manifest.digest, policy.digest)
        group = f"{settings.kafka.group_id}-replay-{request.run}"
        window = open_window(settings, data, request, group)
        progress = ReplayProgress(window.starts, window.ends)
        progress.begin(window.committed)
        on_progress(request, progress.done, window.total)
        if not progress.is_over:
            own = _settings_of_run(settings, group)
            topics = settings.kafka.topics

            def open_log() -> Log:
                inner: Log
                if data is None:
                    inner = open_kafka_log(own.kafka, own.telemetry, topics=[topics.images])
                else:
                    inner = SqliteLog(embedded_log(data), topics=[topics.images], group_id=group)
                return ReplayLog(inner, progress, run=request.run, verdicts=topics.verdicts, replays=topics.replays)

            overloads: Mapping[str, Overloaded] = {}
            if policy.capacities:
                with open_topics() as reader:
                    overloads = past_overloads(reader, topics, window)
            worker = Worker(
                own,
                open_log,
                connect_embedded(),
                open_engine(settings, model),
                model,
                cache_entries=EMBEDDED_CACHE_ENTRIES,
                overload=RecordedOverload(overloads),
            )
            _run(worker, progress, stop, lambda: on_progress(request, progress.done, window.total))
        if progress.is_over:
            finish(settings, data, group)
        return ReplayResult(request, window, progress.done, progress.is_over, progress.missed)


def _run(worker: Worker, progress: ReplayProgress, stop: threading.Event, tell: Callable[[], None]) -> None:
    ending = threading.Event()
    with ThreadPoolExecutor(1, thread_name_prefix="replay") as pool:
        ended = pool.submit(worker.run, ending)
        try:
            while not (ended.done() or progress.is_over or stop.is_set()):
                time.sleep(POLL_SECONDS)
                tell()
        finally:
            ending.set()
    ended.result()
    tell()


def _settings_of_run(settings: Settings, group: str) -> Settings:
    """A group of its own, no transactional id of the live worker's, and no port for metrics, which that one has. Events
    stay in their partition: the retry and surplus topics belong to the live worker."""
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"group_id": group, "transactional_id": None}),
            "intake": settings.intake.model_copy(update={"retry_delays_seconds": ()}),
            "fairness": settings.fairness.model_copy(update={"defer_surplus": False}),
            "telemetry": settings.telemetry.model_copy(update={"metrics_port": None}),
            "shadow_policies": {},
        }
    )
