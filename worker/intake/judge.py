"""From scores, or from a failure, to the records that say so."""

import functools
from collections.abc import Callable

import structlog

from schemas import Failure, FailureReason, Route, Timings
from worker.cache.score_cache import CachedScore
from worker.intake.log import Output, Record
from worker.intake.work import Job, source_of
from worker.outbox import Outbox
from worker.policy import Policy, PolicyError
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)


class Judge:
    """Applies the policy and counts what came of it. Whatever fails is routed to review: no image passes unseen."""

    def __init__(self, policy: Policy, outbox: Outbox, metrics: Metrics, clock: Callable[[], float]) -> None:
        self._policy = policy
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        # Looking a labelled instrument up costs ten times as much as counting with it.
        self._outcome = functools.cache(metrics.events.labels)
        self._route = functools.cache(metrics.routes.labels)
        self._total = metrics.stage_seconds.labels("total")

    def scored(self, job: Job, score: CachedScore, *, cached: bool) -> tuple[Output, ...]:
        """The outputs of a job whose content hash is known."""
        if job.content_hash is None:
            raise ValueError("a job cannot be scored before its content hash is known")
        timings = job.timings(self._clock())
        try:
            route = self._policy.route(job.event, score.scores)
            outputs = self._outbox.scored(
                job.event, job.source, job.content_hash, score.scores, score.features, route, timings, cached=cached
            )
        except PolicyError as error:
            return self.failed(job, Failure(reason=FailureReason.POLICY_FAILED, message=str(error)))
        except Exception as error:  # a fault of ours must neither stop the stream nor let the image through
            logger.exception("judging_failed", event_id=job.event.id)
            message = f"{type(error).__name__} while the verdict was written"
            return self.failed(job, Failure(reason=FailureReason.INTERNAL_ERROR, message=message))
        self._count("cached" if cached else "scored", route, timings)
        return outputs

    def failed(self, job: Job, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a job that could not be judged."""
        route = self._policy.failure_route(job.event.tenant, job.event.priority)
        timings = job.timings(self._clock())
        self._count("failed", route, timings, failure)
        return self._outbox.failed(job.work.record, job.event, job.source, failure, route, timings)

    def malformed(self, record: Record, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a record that holds no event."""
        route = self._policy.failure_route("default", 50)
        self._count("failed", route, Timings(), failure)
        return self._outbox.failed(record, None, source_of(record), failure, route, Timings())

    def _count(self, outcome: str, route: Route, timings: Timings, failure: Failure | None = None) -> None:
        self._outcome(outcome).inc()
        self._route(route.action, route.queue or "").inc()
        self._total.observe(timings.total_ms / 1000)
        if failure is not None:
            self._metrics.dead_letters.labels(failure.reason.value).inc()
