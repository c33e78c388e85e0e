"""From judgements to the records that say so."""

import time
from collections import Counter
from collections.abc import Callable

import structlog

from schemas import Failure, FailureReason
from worker.intake.log import Output
from worker.intake.work import RecordJob, RecordWork
from worker.judging.job import TimingFields
from worker.judging.judgement import Judgement
from worker.judging.router import PolicyRouter
from worker.outbox import Outbox
from worker.policy.replay import destination
from worker.telemetry.cells import CellCounts
from worker.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_NO_TIMINGS: TimingFields = {"fetch_ms": 0.0, "decode_ms": 0.0, "engine_ms": 0.0, "total_ms": 0.0}


class VerdictWriter:
    """Writes the records of each judgement and counts them. For one thread; the metrics are updated in `flush`."""

    def __init__(
        self,
        router: PolicyRouter,
        outbox: Outbox,
        metrics: Metrics,
        clock: Callable[[], float],
        cells: CellCounts,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`router` judges events whose records cannot be written. `cells` counts by tenant and generator."""
        self._router = router
        self._outbox = outbox
        self._policy = ""
        self._metrics = metrics
        self._clock = clock
        self._cells = cells
        self._wall_clock = wall_clock
        # Counting with a labelled instrument costs ten times as much as here.
        self._outcomes: Counter[str] = Counter()
        self._routes: Counter[tuple[str, str]] = Counter()
        self._overload_routes: Counter[tuple[str, str, str]] = Counter()
        self._shadow_routes: Counter[tuple[str, str, str]] = Counter()
        self._total = metrics.stage_seconds.labels("total")
        self._totals: list[float] = []
        self._ages: list[float] = []
        self._tenants: Counter[str] = Counter()

    def write(self, job: RecordJob, judgement: Judgement) -> tuple[Output, ...]:
        """The outputs of a job. Its content hash is known if it has scores. Raises nothing."""
        if judgement.failure is not None:
            return self._write_failed(job, judgement, judgement.failure)
        timings = job.timings(self._clock())
        try:
            outputs = self._write_scored(job, judgement, timings)
        except Exception as error:  # a bug must neither stop the stream nor let the image pass
            log.exception("writing_failed", event_id=job.event.id)
            message = f"{type(error).__name__} while the verdict was written"
            failure = Failure(reason=FailureReason.INTERNAL_ERROR, message=message)
            return self._write_failed(job, self._router.fail(job.event, failure), failure)
        self._count("cached" if judgement.cached else "scored", judgement, timings, job)
        return outputs

    def malformed(self, work: RecordWork, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a record that holds no event."""
        judgement = self._router.fail(None, failure)
        self._count("failed", judgement, _NO_TIMINGS)
        return self._outbox_of(judgement).failed(
            work.record, None, work.source, failure, judgement.route, _NO_TIMINGS, shadow=judgement.shadow
        )

    def flush(self) -> None:
        """Adds what was counted since the last time to the metrics."""
        for outcome, number in self._outcomes.items():
            self._metrics.events.labels(outcome).inc(number)
        for labels, number in self._routes.items():
            self._metrics.routes.labels(*labels).inc(number)
        for which, number in self._overload_routes.items():
            self._metrics.overload_routes.labels(*which).inc(number)
        for names, number in self._shadow_routes.items():
            self._metrics.shadow_routes.labels(*names).inc(number)
        self._cells.flush()
        self._total.observe_all(self._totals)
        self._metrics.verdict_age_seconds.observe_all(self._ages)
        if self._tenants:
            self._metrics.tenant_events.add(self._tenants)
        for counted in (
            self._outcomes,
            self._routes,
            self._overload_routes,
            self._shadow_routes,
            self._totals,
            self._ages,
            self._tenants,
        ):
            counted.clear()

    def _write_scored(self, job: RecordJob, judgement: Judgement, timings: TimingFields) -> tuple[Output, ...]:
        if job.content_hash is None or judgement.scores is None:
            raise ValueError("a verdict with scores needs the content hash")
        return self._outbox_of(judgement).scored(
            job.event,
            job.source,
            job.content_hash,
            judgement.scores,
            judgement.features,
            judgement.route,
            timings,
            cached=judgement.cached,
            shadow=judgement.shadow,
            provenance=judgement.provenance,
            overloaded=judgement.overloaded,
        )

    def _write_failed(self, job: RecordJob, judgement: Judgement, failure: Failure) -> tuple[Output, ...]:
        timings = job.timings(self._clock())
        self._count("failed", judgement, timings, job)
        return self._outbox_of(judgement).failed(
            job.work.record, job.event, job.source, failure, judgement.route, timings, shadow=judgement.shadow
        )

    def _outbox_of(self, judgement: Judgement) -> Outbox:
        if judgement.policy != self._policy:
            self._policy = judgement.policy
            self._outbox = self._outbox.under(judgement.policy)
        return self._outbox

    def _count(self, outcome: str, judgement: Judgement, timings: TimingFields, job: RecordJob | None = None) -> None:
        route = judgement.route
        self._outcomes[outcome] += 1
        self._routes[route.action, route.queue or ""] += 1
        if route.overload is not None:
            self._overload_routes[route.overload.queue, route.overload.mode, destination(route)] += 1
        seconds = timings["total_ms"] / 1000
        if job is not None:
            self._tenants[job.event.tenant] += 1
            quality = judgement.scores.quality if judgement.scores is not None else None
            self._cells.count(job.event.tenant, job.event.generator, route.action, quality)
            if (first_seen := job.first_seen_ms) > 0:
                self._ages.append(max(0.0, self._wall_clock() - first_seen / 1000))
        if job is None or job.trace is None or not job.trace.is_recording:
            self._totals.append(seconds)
        else:  # an exemplar leads from a slow bucket to a trace
            self._total.observe(seconds, {"trace_id": job.trace.trace_id})
        for answer in judgement.shadow:
            self._shadow_routes[answer.name, destination(route), destination(answer.route or route)] += 1
        if judgement.failure is not None:
            self._metrics.dead_letters.labels(judgement.failure.reason.value).inc()
