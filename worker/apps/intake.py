"""The intake application: replicas that read events from Kafka, call the engine application and write verdicts.

`import_path: worker.apps.intake:build`; the deployment is `intake`. See docs/ray-serve.md.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog
from prometheus_client import CollectorRegistry
from pydantic import PositiveFloat
from ray import serve
from ray.serve import Application
from ray.serve.schema import ReplicaRank

from worker.apps.arguments import Arguments, LiveChanges, changed
from worker.apps.autoscaling import BACKLOG, PARTITIONS
from worker.apps.patience import once_kafka_answers
from worker.apps.ray_metrics import RayMetrics
from worker.apps.serve_engine import ENGINE, ServeEngine
from worker.apps.served_model import load_served_model, wait_for_engine
from worker.apps.worker_thread import CLOSE_SECONDS, WorkerThread
from worker.scoring.model import Model
from worker.settings import Settings, SettingsError
from worker.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

INTAKE = "intake"


class IntakeArguments(Arguments):
    """The settings, the engine application and the timeouts of calls to it."""

    engine: str = ENGINE
    """The name of the engine application."""
    call_seconds: PositiveFloat = 60.0
    """Timeout of a batch, including the wait for a free replica."""
    engine_patience_seconds: PositiveFloat = 600.0
    """How long to wait until the engine serves the model, at start and after a change of model."""


class Unwell(Exception):
    """The replica is unhealthy; Serve replaces it."""


class IntakeReplica:
    """One replica: the same worker as `sluice up`, with its engine behind a Serve handle."""

    def __init__(self, settings: Settings, engine: str, call_seconds: float, engine_patience_seconds: float) -> None:
        configure_logging(settings.telemetry)
        self._settings = settings
        self._engine = engine
        self._call_seconds = call_seconds
        self._patience = engine_patience_seconds
        self._changes: LiveChanges = None
        self._worker: WorkerThread | None = None
        self._stopping = False
        self._change_thread = ThreadPoolExecutor(1, thread_name_prefix="intake-change")
        context = serve.get_replica_context()
        tags = {"application": context.app_name, "deployment": context.deployment, "replica": context.replica_tag}
        self._metrics = RayMetrics(self._registry, tags)
        self._metrics.start()

    async def reconfigure(self, user_config: LiveChanges, rank: ReplicaRank) -> None:  # noqa: ARG002
        """Uses the settings with `user_config` merged into them.

        A worker with the new settings joins the group before the old one drains and leaves, so nothing waits. With a
        new model this happens when the engine serves it. Serve calls this before anything else, and always, because it
        takes `rank`. Raises SettingsError, ManifestError, PolicyError, LogError and EngineError: Serve then stops this
        replica and leaves the others as they are.
        """
        await asyncio.get_running_loop().run_in_executor(self._change_thread, self._change, user_config)

    async def check_health(self) -> None:
        """Raises Unwell if the loop is stuck, a partition makes no progress, or the worker has ended."""
        health = self._worker.health() if self._worker is not None else None
        if health is not None and not health.healthy:
            raise Unwell("; ".join(health.reasons))

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """The metrics that LagPolicy scales on."""
        worker = self._worker
        return {} if worker is None else {BACKLOG: float(worker.backlog()), PARTITIONS: float(worker.partitions)}

    def __del__(self) -> None:
        """Finishes what is in flight, commits it and leaves the group. Serve calls this when it stops the replica."""
        if not hasattr(self, "_metrics") or self._stopping:
            return
        self._stopping = True
        if self._worker is not None:
            self._worker.stop()
            if not self._worker.join():
                log.error("intake_not_drained", note="another replica judges what was not committed")
        self._metrics.close()

    def _registry(self) -> CollectorRegistry | None:
        return self._worker.registry if self._worker is not None else None

    def _change(self, changes: LiveChanges) -> None:
        if self._worker is not None and changes == self._changes:  # only the rank changed
            return
        settings = _of_a_replica(changed(self._settings, changes, "user_config"))
        model = load_served_model(settings)
        engine = self._find_engine(settings, model)
        worker = once_kafka_answers(lambda: _started(settings, model, engine), stopping=lambda: self._stopping)
        before, self._worker, self._changes = self._worker, worker, changes
        if self._stopping:
            worker.stop()
        if before is not None:
            before.stop()
            before.join()

    def _find_engine(self, settings: Settings, model: Model) -> ServeEngine:
        """The engine, once it serves the model. Raises EngineAway, ModelNotServed, SettingsError."""
        engine = wait_for_engine(
            self._engine,
            model,
            call_seconds=self._call_seconds,
            patience_seconds=self._patience,
            stopping=lambda: self._stopping,
        )
        if settings.intake.batch_size > engine.max_batch:
            raise SettingsError(
                f"intake.batch_size is {settings.intake.batch_size}, the engine takes at most {engine.max_batch}"
            )
        return engine


def _started(settings: Settings, model: Model, engine: ServeEngine) -> WorkerThread:
    worker = WorkerThread(settings, model, engine)
    worker.start()
    return worker


def _of_a_replica(settings: Settings) -> Settings:
    """The settings without those that replicas cannot share: the static member name, the transactional id (replicas
    would fence each other) and the metrics port (Ray exports the metrics).
    """
    return settings.model_copy(
        update={
            "kafka": settings.kafka.model_copy(update={"transactional_id": None, "group_instance_id": None}),
            "telemetry": settings.telemetry.model_copy(update={"metrics_port": None}),
        }
    )


def build(arguments: IntakeArguments) -> Application:
    """The application. Raises SettingsError."""
    settings = arguments.load()
    deployment = serve.deployment(
        name=INTAKE,
        graceful_shutdown_wait_loop_s=0.1,  # it takes no calls
        graceful_shutdown_timeout_s=settings.intake.drain_seconds + CLOSE_SECONDS,
    )(IntakeReplica)
    return deployment.bind(settings, arguments.engine, arguments.call_seconds, arguments.engine_patience_seconds)
