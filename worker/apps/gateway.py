"""The gateway application: scores over HTTP, for callers that cannot use Kafka.

`import_path: worker.apps.gateway:build`; the deployment is `gateway`. See docs/ray-serve.md.
"""

import asyncio
from typing import Any, Final

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from pydantic import PositiveFloat
from ray import serve
from ray.serve import Application
from ray.serve.schema import ReplicaRank

from worker.apps.arguments import Arguments, LiveChanges, changed
from worker.apps.http.app import build_app
from worker.apps.http.limits import RETRY_SECONDS
from worker.apps.http.meter import Meter
from worker.apps.http.opening import OpenGateway, open_gateway
from worker.apps.ray_metrics import RayMetrics
from worker.apps.serve_engine import ENGINE
from worker.apps.served_model import load_served_model, wait_for_engine
from worker.cache.client import connect
from worker.settings import Settings
from worker.telemetry.logs import configure_logging
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

GATEWAY: Final = "gateway"
ROOM_FOR_PROBES: Final = 16
"""Requests that a replica accepts beyond `gateway.max_requests`, so that a busy one still answers health checks."""


class GatewayArguments(Arguments):
    """The gateway uses the settings `gateway`, `model`, `policy`, `images`, `s3`, `http`, `files`, `redis` and, from
    `intake`, those of batches.
    """

    engine: str = ENGINE
    """The name of the engine application."""
    call_seconds: PositiveFloat = 20.0
    """Timeout of a batch, including the wait for a free replica."""
    engine_patience_seconds: PositiveFloat = 600.0
    """How long to wait until the engine serves the model, at start and after a change of model."""


@serve.ingress()
class GatewayReplica:
    """One replica: an HTTP server with its own pipeline up to the engine."""

    def __init__(self, settings: Settings, engine: str, call_seconds: float, engine_patience_seconds: float) -> None:
        configure_logging(settings.telemetry)
        self._settings = settings
        self._engine = engine
        self._call_seconds = call_seconds
        self._patience = engine_patience_seconds
        registry = CollectorRegistry()
        self._metrics = Metrics(registry)
        self._meter = Meter(registry)
        context = serve.get_replica_context()
        tags = {"application": context.app_name, "deployment": context.deployment, "replica": context.replica_tag}
        self._export = RayMetrics(lambda: registry, tags)
        self._export.start()
        self._web = build_app()
        self._changes: LiveChanges = None
        self._changing = asyncio.Lock()
        self._open: OpenGateway | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._web

    async def reconfigure(self, user_config: LiveChanges, rank: ReplicaRank) -> None:  # noqa: ARG002
        """Uses the settings with `user_config` merged into them. Requests continue meanwhile. Serve calls this before
        the first request, and always, because it takes `rank`. Raises SettingsError, ManifestError, PolicyError and
        EngineError: Serve then stops this replica and leaves the others as they are.
        """
        async with self._changing:
            if self._open is not None and user_config == self._changes:  # only the rank changed
                return
            opened = await asyncio.to_thread(self._build, user_config)
            before, self._open, self._changes = self._open, opened, user_config
            self._web.state.gateway = opened.gateway
        if before is not None:
            task = asyncio.get_running_loop().create_task(before.close())
            self._retiring.add(task)
            task.add_done_callback(self._retiring.discard)

    def _build(self, changes: LiveChanges) -> OpenGateway:
        settings = changed(self._settings, changes, "user_config")
        model = load_served_model(settings)
        engine = wait_for_engine(self._engine, model, call_seconds=self._call_seconds, patience_seconds=self._patience)
        client = connect(settings.redis)
        opened = open_gateway(settings, model, engine, client, self._metrics, self._meter)
        log.info("gateway_open", model=model.manifest.name, callers=len(settings.gateway.keys))
        return opened

    async def __del__(self) -> None:
        """Serve calls this when it stops the replica, after the last request was answered."""
        if hasattr(self, "_open") and self._open is not None:
            await self._open.close()
            self._export.close()


def build(arguments: GatewayArguments) -> Application:
    """The application. Raises SettingsError."""
    settings = arguments.load()
    deployment: Any = serve.deployment(
        GatewayReplica,
        name=GATEWAY,
        max_ongoing_requests=settings.gateway.max_requests + ROOM_FOR_PROBES,
        max_queued_requests=settings.gateway.max_requests,
        backpressure_config={"retry_after_s": float(RETRY_SECONDS)},
        graceful_shutdown_timeout_s=settings.gateway.timeout_seconds + 5,
        graceful_shutdown_wait_loop_s=0.5,
    )
    application: Application = deployment.bind(
        settings, arguments.engine, arguments.call_seconds, arguments.engine_patience_seconds
    )
    return application
