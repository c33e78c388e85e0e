"""From scores, or from a failure, to the records that say so."""

import functools
from collections.abc import Callable

import structlog

from schemas import Failure, FailureReason, ImageEvent, Route, Scores, ShadowRoute
from worker.cache.score_cache import CachedScore
from worker.intake.log import Output, Record
from worker.intake.work import Job, source_of
from worker.outbox import Outbox, TimingFields
from worker.policy import PolicyError
from worker.policy.replay import destination
from worker.policy.shadow import shadow_routes
from worker.policy.watch import InForce
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)

_NONE: TimingFields = {"fetch_ms": 0.0, "decode_ms": 0.0, "engine_ms": 0.0, "total_ms": 0.0}


class Judge:
    """Applies the policy and counts what came of it. Whatever fails is routed to review: no image passes unseen.

    The policies are taken up as they are in force, between events: one event is judged by one policy. One thread at a
    time.
    """

    def __init__(
        self, in_force: Callable[[], InForce], outbox: Outbox, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._watch = in_force
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        # Looking a labelled instrument up costs ten times as much as counting with it.
        self._outcome = functools.cache(metrics.events.labels)
        self._route = functools.cache(metrics.routes.labels)
        self._shadow_route = functools.cache(metrics.shadow_routes.labels)
        self._total = metrics.stage_seconds.labels("total")
        self._take_up(in_force())

    def scored(self, job: Job, score: CachedScore, *, cached: bool) -> tuple[Output, ...]:
        """The outputs of a job whose content hash is known."""
        if job.content_hash is None:
            raise ValueError("a job cannot be scored before its content hash is known")
        self._keep_up()
        timings = job.timings(self._clock())
        try:
            route = self._policy.route(job.event, score.scores)
            shadow = self._shadow(route, job.event, score.scores)
            outputs = self._outbox.scored(
                job.event,
                job.source,
                job.content_hash,
                score.scores,
                score.features,
                route,
                timings,
                cached=cached,
                shadow=shadow,
            )
        except PolicyError as error:
            failure = Failure(reason=FailureReason.POLICY_FAILED, message=str(error))
            return self._failed(job, failure, score.scores)
        except Exception as error:  # a fault of ours must neither stop the stream nor let the image through
            logger.exception("judging_failed", event_id=job.event.id)
            message = f"{type(error).__name__} while the verdict was written"
            return self._failed(job, Failure(reason=FailureReason.INTERNAL_ERROR, message=message), None)
        self._count("cached" if cached else "scored", route, shadow, timings)
        return outputs

    def failed(self, job: Job, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a job that could not be judged."""
        self._keep_up()
        return self._failed(job, failure, None)

    def malformed(self, record: Record, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a record that holds no event."""
        self._keep_up()
        route = self._policy.failure_route("default", 50)
        shadow = self._shadow(route, None, None)
        self._count("failed", route, shadow, _NONE, failure)
        return self._outbox.failed(record, None, source_of(record), failure, route, _NONE, shadow=shadow)

    def _failed(self, job: Job, failure: Failure, scores: Scores | None) -> tuple[Output, ...]:
        """`scores` where there are some, and only the live policy could make nothing of them."""
        route = self._policy.failure_route(job.event.tenant, job.event.priority)
        shadow = self._shadow(route, job.event, scores)
        timings = job.timings(self._clock())
        self._count("failed", route, shadow, timings, failure)
        return self._outbox.failed(job.work.record, job.event, job.source, failure, route, timings, shadow=shadow)

    def _keep_up(self) -> None:
        in_force = self._watch()
        if in_force is not self._in_force:
            self._metrics.policy_changes.inc()
            self._take_up(in_force)

    def _take_up(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._policy = in_force.live
        self._outbox = self._outbox.under(in_force.live.digest)

    def _shadow(self, route: Route, event: ImageEvent | None, scores: Scores | None) -> tuple[ShadowRoute, ...]:
        shadows = self._in_force.shadows
        return shadow_routes(shadows, route, event, scores, self._shadow_failed) if shadows else ()

    def _shadow_failed(self, name: str) -> None:
        self._metrics.shadow_failures.labels(name).inc()

    def _count(
        self,
        outcome: str,
        route: Route,
        shadow: tuple[ShadowRoute, ...],
        timings: TimingFields,
        failure: Failure | None = None,
    ) -> None:
        self._outcome(outcome).inc()
        self._route(route.action, route.queue or "").inc()
        self._total.observe(timings["total_ms"] / 1000)
        for answer in shadow:
            self._shadow_route(answer.name, destination(route), destination(answer.route or route)).inc()
        if failure is not None:
            self._metrics.dead_letters.labels(failure.reason.value).inc()
