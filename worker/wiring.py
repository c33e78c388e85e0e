"""Puts the parts together: settings in, a ready worker out. Shared by the command line and the Ray applications."""

import random
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from worker.cache.client import CacheClient, connect, connect_embedded
from worker.cache.score_cache import ScoreCache
from worker.images.decode import DecodeLimits
from worker.images.decoder_pool import DecoderPool
from worker.images.fetch import build_fetcher
from worker.images.provenance.reader import open_reader
from worker.intake.crash_markers import FileMarkers, RedisMarkers
from worker.intake.embedded import embedded_log, open_embedded_topics
from worker.intake.intake import Intake
from worker.intake.interpreter import tune_interpreter
from worker.intake.log import Log
from worker.intake.member import Parts
from worker.intake.sqlite_log import SqliteLog
from worker.intake.tenant_memory import RedisTenants, TenantMemory
from worker.intake.verdicts import VerdictWriter
from worker.intake.work import RecordJob
from worker.judging.batch_runner import BatchRunner
from worker.judging.overload_watch import OverloadSource, OverloadWatch
from worker.judging.parts import PipelineParts
from worker.judging.prepare import Preparer
from worker.judging.router import PolicyRouter
from worker.outbox import ROOM_FOR_OURS, Identity, Outbox
from worker.policy.place import open_place, place_of
from worker.policy.review_load import FileLoad, RedisLoad, ReviewLoadWatch
from worker.policy.watch import PolicyWatch
from worker.scoring.engine import Engine
from worker.scoring.model import Model, load_model
from worker.scoring.opening import open_engine as open_engine
from worker.settings import Settings
from worker.supervision import Supervisor
from worker.telemetry.cells import CellCounts
from worker.telemetry.metrics import Metrics
from worker.telemetry.open_tracing import open_tracing, samples
from worker.telemetry.server import Health, TelemetryServer

if TYPE_CHECKING:
    from worker.intake.event_traces import EventTraces
    from worker.preflight import KafkaWatch

EMBEDDED_CACHE_ENTRIES = 100_000


class Worker:
    """One process's share of the work: reads the log until told to stop. Runs once."""

    def __init__(
        self,
        settings: Settings,
        open_log: Callable[[], Log],
        redis_client: CacheClient,
        engine: Engine,
        model: Model,
        *,
        cache_entries: int | None = None,
        data: Path | None = None,
        kafka_watch: "KafkaWatch | None" = None,
        overload: OverloadSource | None = None,
    ) -> None:
        """`cache_entries` bounds a cache that does not bound itself. `data`: the embedded parts' folder. `kafka_watch`
        starts and ends with the worker, and its problems are the worker's. `overload` tells the overloaded review
        queues; absent: the desk does.

        Raises PolicyError when the policy cannot be used, ProvenanceError when provenance cannot be read.
        """
        self._settings = settings
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry, top_tenants=settings.telemetry.top_tenants)
        self.metrics.set_capacity(
            prepare_threads=settings.intake.prepare_threads,
            batches=settings.intake.batches_in_flight,
            batch_images=settings.intake.batch_size,
        )
        self.supervisor = Supervisor(self.registry)
        self._resources = ExitStack()
        self._kafka_watch = kafka_watch
        manifest = model.manifest
        self.engine = engine
        self.model = model
        shadows = {name: open_place(address, settings.s3) for name, address in settings.shadow_policies.items()}
        self._policies = PolicyWatch(place_of(settings, data), shadows, provenance=settings.images.provenance)
        self.metrics.policies_refused.set_function(lambda: len(self._policies.troubles()))
        provenance = open_reader(settings.images)
        cache = ScoreCache(
            redis_client,
            model_digest=manifest.digest,
            ttl_seconds=settings.redis.ttl_seconds,
            reads_prompts=manifest.judges_prompts,
            metrics=self.metrics,
            clock=time.monotonic,
            max_entries=cache_entries,
            provenance=provenance.identity if provenance is not None else "",
        )
        fetcher = build_fetcher(settings, when_needed=data is not None)
        batches: BatchRunner[RecordJob] = BatchRunner(
            engine, model, cache, self.metrics, batches_in_flight=settings.intake.batches_in_flight
        )
        prepare_pool = ThreadPoolExecutor(settings.intake.prepare_threads, thread_name_prefix="sluice-prepare")
        # Closed in the opposite order: those who use a part before the part.
        for close in (redis_client.close, fetcher.close, engine.close, batches.close):
            self._resources.callback(close)
        if provenance is not None:
            self._resources.callback(provenance.close)
        self._decoders = DecoderPool(
            DecodeLimits.of(settings.images), manifest.views, settings.images, on_death=self.metrics.decoder_deaths.inc
        )
        self._resources.callback(self._decoders.close)
        self._resources.callback(prepare_pool.shutdown, wait=False, cancel_futures=True)
        outbox = Outbox(
            settings.kafka.topics,
            Identity(model=manifest.digest, policy=self._policies.active.live.digest),
            max_message_bytes=settings.kafka.max_message_bytes,
            now=lambda: datetime.now(UTC),
        )
        store = RedisLoad(redis_client) if data is None else FileLoad(data)
        self._review_load = ReviewLoadWatch(store, lambda: self._policies.active.state_capacities)
        router = PolicyRouter(
            lambda: self._policies.active,
            self.metrics,
            overload or OverloadWatch(lambda: self._review_load.current, self.metrics),
        )
        rng = random.Random()  # noqa: S311  # jitter and samples are no secret
        cells = CellCounts(
            self.metrics,
            tenants=settings.telemetry.top_tenants,
            generators=settings.telemetry.top_generators,
            clock=time.monotonic,
        )
        parts = Parts(
            judging=PipelineParts(
                preparer=Preparer(
                    fetcher,
                    cache,
                    self._decoders,
                    animation_score=settings.images.animation_score,
                    provenance=provenance,
                ),
                batches=batches,
                router=router,
                cache=cache,
                prepare_pool=prepare_pool,
                metrics=self.metrics,
                clock=time.monotonic,
                rng=rng,
            ),
            markers=RedisMarkers(redis_client, settings.kafka.group_id)
            if data is None
            else FileMarkers(data / "in-flight"),
            process=uuid.uuid4().hex,
            writer=VerdictWriter(router, outbox, self.metrics, time.monotonic, cells),
            max_event_bytes=settings.kafka.max_message_bytes - ROOM_FOR_OURS,
            settings=settings.intake,
            fairness=settings.fairness,
            topics=settings.kafka.topics,
            tenants=TenantMemory(
                None if data is not None else RedisTenants(redis_client, settings.kafka.group_id),
                clock=time.monotonic,
                wall_clock=time.time,
            ),
            traces=self._traces(settings, rng),
        )
        self._intake = Intake(open_log, parts)

    def _traces(self, settings: Settings, rng: random.Random) -> "EventTraces | None":
        tracing = open_tracing(settings.telemetry, "sluice-worker", self.registry)
        if tracing is None:
            return None
        from worker.intake.event_traces import EventTraces  # loads OpenTelemetry

        self._resources.callback(tracing.close)
        return EventTraces(tracing, lambda: samples(settings.telemetry, rng), group_id=settings.kafka.group_id)

    def run(self, stop: threading.Event) -> None:
        """Works until `stop` is set and what was with the engine is committed, then frees everything.

        Raises LogError when the log cannot be opened, TelemetryServerError when the metrics' address cannot be used,
        EngineLost when only a new process can judge.
        """
        telemetry = self._settings.telemetry
        tune_interpreter()
        with self._resources:
            if telemetry.metrics_port is not None:
                server = TelemetryServer(telemetry.host, telemetry.metrics_port, self.registry, self.health)
                self._resources.callback(server.close)
            self._resources.callback(self.supervisor.close, 1.0)  # not longer for a policy store that does not answer
            self._policies.start(self.supervisor)
            self._review_load.start(self.supervisor)
            if self._kafka_watch is not None:
                self._kafka_watch.start(self.supervisor)
            self._intake.run(stop)

    def health_problems(self) -> tuple[str, ...]:
        """What makes this worker unhealthy; empty when nothing does. From any thread."""
        lost = self._kafka_watch.health_problems() if self._kafka_watch is not None else ()
        decoders = self._decoders.health_problems()
        return (*lost, *self._intake.health_problems(), *decoders, *self.supervisor.health_problems())

    def problems(self) -> tuple[str, ...]:
        """All problems, including those that a restart would not fix: a store that does not answer, or a changed policy
        that cannot be used while the last valid one stays active. May be called from any thread.
        """
        told = (*self._intake.store_outages(), *self._intake.log_notes(), *self._policies.troubles())
        return (*self.health_problems(), *told)

    def health(self) -> Health:
        return Health(not self.health_problems(), self.problems())


def build_worker(settings: Settings) -> Worker:
    """A worker on Kafka, Redis and S3 with the engine in its own process.

    Raises LogError when the servers do not give what a worker needs, ManifestError or PolicyError when model or policy
    cannot be used.
    """
    # the embedded worker needs no Kafka client
    from worker.intake.kafka_client import open_kafka_log
    from worker.intake.kafka_producer import for_one_worker
    from worker.preflight import KafkaWatch, require_servers

    require_servers(settings)
    model = load_model(settings.model, settings.s3)
    kafka = for_one_worker(settings.kafka)
    return Worker(
        settings,
        lambda: open_kafka_log(kafka, settings.telemetry, topics=kafka.topics.judged),
        connect(settings.redis),
        open_engine(settings, model),
        model,
        kafka_watch=KafkaWatch(settings.kafka),
    )


def build_embedded_worker(settings: Settings, data: Path) -> Worker:
    """A worker that needs no server: the log in one file below `data`, the cache in memory.

    Raises ManifestError, PolicyError, or LogError when `data` cannot be used.
    """
    model = load_model(settings.model, settings.s3)
    open_embedded_topics(settings, data).close()

    def open_log() -> Log:
        return SqliteLog(embedded_log(data), topics=settings.kafka.topics.judged, group_id=settings.kafka.group_id)

    return Worker(
        settings,
        open_log,
        connect_embedded(),
        open_engine(settings, model),
        model,
        cache_entries=EMBEDDED_CACHE_ENTRIES,
        data=data,
    )
