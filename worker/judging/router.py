"""From scores, or from a failure, to a route."""

from collections.abc import Callable, Mapping

import structlog

from schemas import (
    NO_PROVENANCE,
    Failure,
    FailureReason,
    ImageEvent,
    Provenance,
    Route,
    Scores,
    ShadowRoute,
)
from worker.cache.values import NO_FEATURES, CachedScore
from worker.judging.job import Job
from worker.judging.judgement import Judgement
from worker.judging.overload_watch import OverloadSource, RecordedOverload
from worker.policy import PolicyError
from worker.policy.shadow import shadow_routes
from worker.policy.watch import ActivePolicies
from worker.telemetry.metrics import Metrics
from worker.telemetry.trace_context import stage_of

log = structlog.get_logger(__name__)

DEFAULT_TENANT = "default"
DEFAULT_PRIORITY = 50


class PolicyRouter:
    """Applies the live policy and asks the shadow policies. Whatever fails is routed to review: no image passes unseen.

    Policies change only in `refresh`, so that everything between two calls is judged by the same ones. For one thread.
    """

    def __init__(
        self, active: Callable[[], ActivePolicies], metrics: Metrics, overload: OverloadSource | None = None
    ) -> None:
        """`active` returns the policies to use, the same object as long as they have not changed. Without `overload` no
        review queue is ever overloaded."""
        self._read_active = active
        self._metrics = metrics
        self._overload = overload or RecordedOverload({})
        self._active = active()
        self._policy = self._active.live

    def refresh(self) -> None:
        """Switches to the policies that are active now, and to the present load of the review queues."""
        active = self._read_active()
        self._overload.refresh(active)
        if active is not self._active:
            self._metrics.policy_changes.inc()
            self._active = active
            self._policy = active.live

    def judge_job(self, job: Job, score: CachedScore, *, cached: bool) -> Judgement:
        """As `judge`, of a job whose image has this score."""
        with stage_of(job.trace, "policy"):
            return self.judge(
                job.event, score.scores, cached=cached, features=score.features, provenance=score.provenance
            )

    def judge(
        self,
        event: ImageEvent,
        scores: Scores,
        *,
        cached: bool,
        features: Mapping[str, bytes] = NO_FEATURES,
        provenance: Provenance | None = None,
    ) -> Judgement:
        """The judgement of an event that has scores. Raises nothing: a rule that fails makes it a failure."""
        try:
            overloaded = self._overload.live(event.id)
            route = self._policy.route(event, scores, provenance or NO_PROVENANCE, overloaded)
            shadow = self._shadow(route, event, scores, provenance)
            return Judgement(
                route,
                self._policy.digest,
                scores,
                None,
                shadow,
                features,
                cached,
                provenance=provenance,
                overloaded=overloaded,
            )
        except PolicyError as error:
            failure = Failure(reason=FailureReason.POLICY_FAILED, message=str(error))
            return self._failed(event, failure, scores, provenance)
        except Exception as error:  # a bug must neither stop the stream nor let the image pass
            log.exception("judging_failed", event_id=event.id)
            message = f"{type(error).__name__} while the policy was applied"
            return self.fail(event, Failure(reason=FailureReason.INTERNAL_ERROR, message=message))

    def fail(self, event: ImageEvent | None, failure: Failure, *, retriable: bool = False) -> Judgement:
        """The judgement of an event that could not be judged; None for a record that holds no event."""
        return self._failed(event, failure, None, retriable=retriable)

    def _failed(
        self,
        event: ImageEvent | None,
        failure: Failure,
        scores: Scores | None,
        provenance: Provenance | None = None,
        *,
        retriable: bool = False,
    ) -> Judgement:
        """`scores` and `provenance` where there are some, and only the live policy failed on them."""
        tenant, priority = (event.tenant, event.priority) if event else (DEFAULT_TENANT, DEFAULT_PRIORITY)
        route = self._policy.failure_route(tenant, priority)
        shadow = self._shadow(route, event, scores, provenance)
        return Judgement(route, self._policy.digest, scores, failure, shadow, retriable=retriable)

    def _shadow(
        self, route: Route, event: ImageEvent | None, scores: Scores | None, provenance: Provenance | None
    ) -> tuple[ShadowRoute, ...]:
        shadows = self._active.shadows
        if not shadows:
            return ()
        return shadow_routes(
            shadows,
            route,
            event,
            scores,
            self._shadow_failed,
            provenance or NO_PROVENANCE,
            self._overload.shadows,
        )

    def _shadow_failed(self, name: str) -> None:
        self._metrics.shadow_failures.labels(name).inc()
