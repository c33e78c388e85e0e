"""From scores, or from a failure, to the records that say so."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog

from schemas import Failure, FailureReason, ImageEvent, Route, Scores, ShadowRoute
from worker.cache.score_cache import CachedScore
from worker.intake.log import Output, Record
from worker.intake.work import RecordJob, source_of
from worker.judging.job import TimingFields
from worker.outbox import Outbox
from worker.policy import PolicyError
from worker.policy.replay import destination
from worker.policy.shadow import shadow_routes
from worker.policy.watch import InForce
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)


class Ruling(NamedTuple):
    """What the policies say of an event. With a `failure`, the live one could make nothing of it."""

    scores: Scores | None
    route: Route
    shadow: tuple[ShadowRoute, ...]
    failure: Failure | None = None

    @property
    def needs_features(self) -> bool:
        """A review item will be written, which carries them."""
        return self.route.action == "review" and self.failure is None


_NONE: TimingFields = {"fetch_ms": 0.0, "decode_ms": 0.0, "engine_ms": 0.0, "total_ms": 0.0}


class Judge:
    """Applies the policy and counts what came of it. Whatever fails is routed to review: no image passes unseen.

    The policies in force are taken up at `turn`, so that an event is ruled on and written under one policy; counts are
    told there too. One thread at a time.
    """

    def __init__(
        self, in_force: Callable[[], InForce], outbox: Outbox, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._watch = in_force
        self._outbox = outbox
        self._metrics = metrics
        self._clock = clock
        # Counting with a labelled instrument costs ten times as much as here.
        self._outcomes: Counter[str] = Counter()
        self._routes: Counter[tuple[str, str]] = Counter()
        self._shadow_routes: Counter[tuple[str, str, str]] = Counter()
        self._total = metrics.stage_seconds.labels("total")
        self._totals: list[float] = []
        self._take_up(in_force())

    def turn(self) -> None:
        """Takes up the policies in force, and tells the metrics what was counted since the last turn."""
        in_force = self._watch()
        if in_force is not self._in_force:
            self._metrics.policy_changes.inc()
            self._take_up(in_force)
        self._tell()

    def rule(self, job: RecordJob, scores: Scores) -> Ruling:
        """What becomes of an event that has scores."""
        try:
            route = self._policy.route(job.event, scores)
            return Ruling(scores, route, self._shadow(route, job.event, scores))
        except PolicyError as error:
            return self._failure_ruling(job, Failure(reason=FailureReason.POLICY_FAILED, message=str(error)), scores)
        except Exception as error:  # noqa: BLE001  # a fault of ours must neither stop the stream nor let the image through
            return self._fault(job, error)

    def write(
        self, job: RecordJob, ruling: Ruling, features: Mapping[str, bytes], *, cached: bool
    ) -> tuple[Output, ...]:
        """The outputs of a job that was ruled on since the last turn, and whose content hash is known.

        `features` are left out unless the ruling needs them.
        """
        if ruling.failure is not None:
            return self._write_failed(job, ruling, ruling.failure)
        if job.content_hash is None or ruling.scores is None:
            raise ValueError("a job is written once its content hash and its scores are known")
        timings = job.timings(self._clock())
        try:
            outputs = self._outbox.scored(
                job.event,
                job.source,
                job.content_hash,
                ruling.scores,
                features,
                ruling.route,
                timings,
                cached=cached,
                shadow=ruling.shadow,
            )
        except Exception as error:  # noqa: BLE001  # as above
            fault = self._fault(job, error)
            return self.write(job, fault, {}, cached=cached)
        self._count("cached" if cached else "scored", ruling, timings)
        return outputs

    def scored(self, job: RecordJob, score: CachedScore, *, cached: bool) -> tuple[Output, ...]:
        """Rules and writes."""
        return self.write(job, self.rule(job, score.scores), score.features, cached=cached)

    def failed(self, job: RecordJob, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a job that could not be judged."""
        return self._write_failed(job, self._failure_ruling(job, failure, None), failure)

    def malformed(self, record: Record, failure: Failure) -> tuple[Output, ...]:
        """The outputs of a record that holds no event."""
        route = self._policy.failure_route("default", 50)
        shadow = self._shadow(route, None, None)
        self._count("failed", Ruling(None, route, shadow, failure), _NONE)
        return self._outbox.failed(record, None, source_of(record), failure, route, _NONE, shadow=shadow)

    def _fault(self, job: RecordJob, error: Exception) -> Ruling:
        """The ruling on an event that we could not judge though it can be."""
        logger.exception("judging_failed", event_id=job.event.id)
        message = f"{type(error).__name__} while the verdict was written"
        return self._failure_ruling(job, Failure(reason=FailureReason.INTERNAL_ERROR, message=message), None)

    def _failure_ruling(self, job: RecordJob, failure: Failure, scores: Scores | None) -> Ruling:
        """`scores` where there are some, and only the live policy could make nothing of them."""
        route = self._policy.failure_route(job.event.tenant, job.event.priority)
        return Ruling(scores, route, self._shadow(route, job.event, scores), failure)

    def _write_failed(self, job: RecordJob, ruling: Ruling, failure: Failure) -> tuple[Output, ...]:
        timings = job.timings(self._clock())
        self._count("failed", ruling, timings)
        return self._outbox.failed(
            job.work.record, job.event, job.source, failure, ruling.route, timings, shadow=ruling.shadow
        )

    def _take_up(self, in_force: InForce) -> None:
        self._in_force = in_force
        self._policy = in_force.live
        self._outbox = self._outbox.under(in_force.live.digest)

    def _shadow(self, route: Route, event: ImageEvent | None, scores: Scores | None) -> tuple[ShadowRoute, ...]:
        shadows = self._in_force.shadows
        return shadow_routes(shadows, route, event, scores, self._shadow_failed) if shadows else ()

    def _shadow_failed(self, name: str) -> None:
        self._metrics.shadow_failures.labels(name).inc()

    def _count(self, outcome: str, ruling: Ruling, timings: TimingFields) -> None:
        route = ruling.route
        self._outcomes[outcome] += 1
        self._routes[route.action, route.queue or ""] += 1
        self._totals.append(timings["total_ms"] / 1000)
        for answer in ruling.shadow:
            self._shadow_routes[answer.name, destination(route), destination(answer.route or route)] += 1
        if ruling.failure is not None:
            self._metrics.dead_letters.labels(ruling.failure.reason.value).inc()

    def _tell(self) -> None:
        for outcome, number in self._outcomes.items():
            self._metrics.events.labels(outcome).inc(number)
        for labels, number in self._routes.items():
            self._metrics.routes.labels(*labels).inc(number)
        for names, number in self._shadow_routes.items():
            self._metrics.shadow_routes.labels(*names).inc(number)
        self._total.observe_all(self._totals)
        for counted in (self._outcomes, self._routes, self._shadow_routes, self._totals):
            counted.clear()
