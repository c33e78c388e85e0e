"""Builds the gateway from the settings."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from worker.apps.http.app import Gateway
from worker.apps.http.callers import Callers
from worker.apps.http.inference_protocol import Readiness
from worker.apps.http.limits import Limits
from worker.apps.http.meter import Meter
from worker.apps.http.scoring import RequestJob, Scoring, on_thread
from worker.cache.client import CacheClient
from worker.cache.score_cache import ScoreCache
from worker.images.decode import DecodeLimits
from worker.images.decoder_pool import DecoderPool
from worker.images.fetch import build_fetcher
from worker.images.provenance.reader import open_reader
from worker.judging.batch_runner import BatchRunner
from worker.judging.overload_watch import OverloadWatch
from worker.judging.parts import PipelineParts
from worker.judging.prepare import Preparer
from worker.judging.router import PolicyRouter
from worker.policy.place import place_of
from worker.policy.review_load import RedisLoad, ReviewLoadWatch
from worker.policy.watch import PolicyWatch
from worker.scoring.engine import Engine, blank_views
from worker.scoring.model import Model
from worker.settings import Settings
from worker.supervision import Supervisor
from worker.telemetry.metrics import Metrics

CLOSE_POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class OpenGateway:
    """A gateway and its resources."""

    gateway: Gateway
    _resources: ExitStack

    async def close(self) -> None:
        """Finishes all requests in progress, including those whose body has not arrived yet, then releases
        everything.
        """
        while self.gateway.limits.requests:
            await asyncio.sleep(CLOSE_POLL_SECONDS)
        await self.gateway.scoring.close()
        self._resources.close()


def open_gateway(
    settings: Settings,
    model: Model,
    engine: Engine,
    client: CacheClient,
    metrics: Metrics,
    meter: Meter,
) -> OpenGateway:
    """Opens a gateway. Blocks until the engine answers, so do not call it on an event loop. Closing the gateway closes
    engine and client.

    Raises PolicyError, ProvenanceError, EngineError, or ValueError for invalid server settings.
    """
    manifest = model.manifest
    with ExitStack() as resources:
        resources.callback(client.close)
        resources.callback(engine.close)
        policies = PolicyWatch(place_of(settings, None), {}, provenance=settings.images.provenance)
        supervisor = Supervisor()
        resources.callback(supervisor.close, 0.1)  # no longer, even if a policy store does not answer
        load = ReviewLoadWatch(RedisLoad(client), lambda: policies.active.state_capacities)
        provenance = open_reader(settings.images)
        if provenance is not None:
            resources.callback(provenance.close)
        cache = ScoreCache(
            client,
            model_digest=manifest.digest,
            reads_prompts=manifest.judges_prompts,
            ttl_seconds=settings.redis.ttl_seconds,
            metrics=metrics,
            provenance=provenance.identity if provenance is not None else "",
        )
        fetcher = build_fetcher(settings)
        resources.callback(fetcher.close)
        batches: BatchRunner[RequestJob] = BatchRunner(
            engine, model, cache, metrics, batches_in_flight=settings.intake.batches_in_flight
        )
        resources.callback(batches.close)
        pool = ThreadPoolExecutor(settings.intake.prepare_threads, thread_name_prefix="sluice-gateway")
        resources.callback(pool.shutdown, wait=False, cancel_futures=True)
        probe_thread = ThreadPoolExecutor(1, thread_name_prefix="sluice-probe")
        resources.callback(probe_thread.shutdown, wait=False, cancel_futures=True)
        decoders = DecoderPool(
            DecodeLimits.of(settings.images), manifest.views, settings.images, on_death=metrics.decoder_deaths.inc
        )
        resources.callback(decoders.close)
        blank = blank_views(manifest.views)
        parts = PipelineParts(
            preparer=Preparer(
                fetcher,
                cache,
                decoders,
                animation_score=settings.images.animation_score,
                provenance=provenance,
            ),
            batches=batches,
            router=PolicyRouter(lambda: policies.active, metrics, OverloadWatch(lambda: load.current, metrics)),
            cache=cache,
            prepare_pool=pool,
            metrics=metrics,
            clock=time.monotonic,
            rng=random.Random(),  # noqa: S311  # jitter is no secret
        )
        scoring = Scoring(parts, settings.intake, max_batch=engine.max_batch)

        async def probe() -> None:
            scoring.check()
            await on_thread(probe_thread, engine.infer, blank)

        gateway = Gateway(
            manifest=manifest,
            scoring=scoring,
            readiness=Readiness(probe, time.monotonic),
            policy=lambda: policies.active.live,
            callers=Callers(settings.gateway.keys),
            limits=Limits(settings.gateway, settings.images),
            timeout_seconds=settings.gateway.timeout_seconds,
            meter=meter,
            now=lambda: datetime.now(UTC),
        )
        policies.start(supervisor)
        load.start(supervisor)
        return OpenGateway(gateway, resources.pop_all())
