"""The engine application: replicas that turn batches of views into features, on GPU or CPU.

`import_path: worker.apps.engine:build`; the deployment is `engine`. See docs/ray-serve.md.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Annotated, Final, TypeVar

import structlog
from pydantic import Field, PositiveFloat
from ray import serve
from ray.serve import Application
from ray.serve.schema import ReplicaRank

from worker.apps.arguments import Arguments, LiveChanges, changed
from worker.apps.hosted import Hosted
from worker.apps.serve_engine import ENGINE
from worker.scoring.engine import EngineLost, Features, Prompts, Views, blank_views
from worker.scoring.model import load_model
from worker.settings import Settings
from worker.telemetry.logs import configure_logging
from worker.telemetry.open_tracing import open_tracing
from worker.wiring import open_engine

log = structlog.get_logger(__name__)

ANSWER_SECONDS: Final = 1.0
"""How long a process with a lost engine waits before it ends, so that its callers get their answers."""

T = TypeVar("T")


class EngineArguments(Arguments):
    """The engine uses the settings `model`, `engine` and `s3`."""

    calls_at_once: Annotated[int, Field(ge=1, le=256)] = 4
    """Batches that a replica runs concurrently. Others wait at their callers."""
    linger_seconds: PositiveFloat = 300.0
    """How long a replaced model stays loaded after its last use."""


class EngineReplica:
    """One replica. Calls run on threads, so that several overlap and the event loop stays free."""

    def __init__(self, settings: Settings, calls_at_once: int, linger_seconds: float) -> None:
        configure_logging(settings.telemetry)
        self._settings = settings
        self._changes: LiveChanges = None
        self._opened = False
        self._lost = threading.Event()
        self._tracing = open_tracing(settings.telemetry, "sluice-engine")
        self._hosted = Hosted(linger_seconds=linger_seconds, clock=time.monotonic)
        self._threads = ThreadPoolExecutor(calls_at_once, thread_name_prefix="engine-call")
        # Separate threads, so that neither a health check nor a change of model waits for calls.
        self._check_thread = ThreadPoolExecutor(1, thread_name_prefix="engine-check")
        self._change_thread = ThreadPoolExecutor(1, thread_name_prefix="engine-change")

    async def reconfigure(self, user_config: LiveChanges, rank: ReplicaRank) -> None:  # noqa: ARG002
        """Serves the model of the settings with `user_config` merged into them. Calls continue meanwhile. Serve calls
        this before the first call, and always, because it takes `rank`. Raises SettingsError and ManifestError: Serve
        then stops this replica and leaves the others as they are.
        """
        await _on(self._change_thread, lambda: self._change(user_config))

    async def infer(
        self, digest: str, views: Views, prompts: Prompts | None = None, traceparent: str | None = None
    ) -> Features:
        """The features of a batch from the model with that digest. `traceparent`: the caller's trace, if it has one.

        Raises ModelNotServed and BatchFailed. Raises EngineLost and then ends the process; Serve starts another
        replica.
        """
        return await _on(self._threads, lambda: self._infer(digest, views, prompts, traceparent))

    async def max_batch(self, digest: str) -> int:
        """The maximum batch size. Raises ModelNotServed."""
        with self._hosted.use(digest) as engine:
            return engine.max_batch

    async def check_health(self) -> None:
        """Scores a blank image. Raises EngineError if that fails; ends the process if the engine is lost."""
        await _on(self._check_thread, self._check)

    def __del__(self) -> None:
        """Serve calls this when it stops the replica, after the last call was answered."""
        if hasattr(self, "_hosted"):
            self._hosted.close()
            if self._tracing is not None:
                self._tracing.close()

    def _infer(self, digest: str, views: Views, prompts: Prompts | None, traceparent: str | None) -> Features:
        traced = nullcontext() if self._tracing is None else self._tracing.served("infer", traceparent)
        with traced, self._ending_when_lost(), self._hosted.use(digest) as engine:
            return engine.infer(views, prompts)

    def _check(self) -> None:
        with self._ending_when_lost():
            self._hosted.close_idle()
            self._hosted.try_current()

    @contextmanager
    def _ending_when_lost(self) -> Iterator[None]:
        """Ends the process shortly after an EngineLost, when the callers have their answers."""
        try:
            yield
        except EngineLost as error:
            if not self._lost.is_set():
                self._lost.set()
                log.exception("engine_lost", error=str(error), note="this process ends; Serve starts another replica")
                timer = threading.Timer(ANSWER_SECONDS, end_process, [1])
                timer.daemon = True
                timer.start()
            raise

    def _change(self, changes: LiveChanges) -> None:
        if self._opened and changes == self._changes:  # only the rank changed
            return
        settings = changed(self._settings, changes, "user_config")
        model = load_model(settings.model, settings.s3)
        blank = blank_views(model.manifest.views)
        engine = open_engine(settings, model)
        engine.infer(blank)
        self._hosted.put(model.manifest.digest, engine, blank)
        self._changes, self._opened = changes, True


def end_process(code: int) -> None:
    """Ends the process without cleaning up: code that holds a lost device may wait for ever."""
    os._exit(code)


async def _on(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(threads, work)


def build(arguments: EngineArguments) -> Application:
    """The application. Raises SettingsError."""
    settings = arguments.load()
    deployment = serve.deployment(
        name=ENGINE,
        max_ongoing_requests=arguments.calls_at_once,
        graceful_shutdown_wait_loop_s=0.5,
        logging_config={"enable_access_log": False},  # it would log a line for every batch
    )(EngineReplica)
    return deployment.bind(settings, arguments.calls_at_once, arguments.linger_seconds)
