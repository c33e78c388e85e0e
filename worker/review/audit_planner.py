"""Plans how passed images are drawn for the audit: from the settings, and within a budget by what audits have found."""

import uuid
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from threading import Event
from typing import Final

import redis
import structlog

from schemas import AuditPlan, AuditStratum
from worker.intake.log import Output
from worker.review.audit_plans import AuditPlanReader
from worker.review.catalogue.audit_catalogue import audited_items
from worker.review.catalogue.catalogue import Catalogue
from worker.review.index import keys
from worker.review.singleton_lease import SingletonLease
from worker.review.topics import Topics
from worker.settings import Settings
from worker.trust.allocation import DrawnImage, allocate
from worker.trust.drawing import uniform

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 60.0
LEASE_SECONDS: Final = 3 * LOOK_SECONDS
NOTICE: Final = timedelta(minutes=10)
"""A plan comes into force so long after it is published: by then every desk has read it."""
EVERY: Final = timedelta(days=1)
WINDOW: Final = timedelta(days=7)
"""A plan follows the images of the last seven days."""
SHORTEST: Final = timedelta(hours=1)


class AuditPlanner:
    """One desk at a time publishes a plan: when the settings change, and with `audits_per_day` once a day."""

    def __init__(
        self,
        settings: Settings,
        topics: Topics,
        client: redis.Redis,
        catalogue: Catalogue,
        is_caught_up: Callable[[], bool],
        now: Callable[[], datetime],
    ) -> None:
        """`is_caught_up`: whether the catalogue has what stands in the topics."""
        self._topic = settings.kafka.topics.audit_plans
        self._review = settings.review
        self._topics = topics
        self._reader = AuditPlanReader(settings, topics)
        self._catalogue = catalogue
        self._is_caught_up = is_caught_up
        self._now = now
        self._lease = SingletonLease(client, keys.AUDIT_PLANNER, uuid.uuid4().hex, LEASE_SECONDS)

    def run(self, stop: Event) -> None:
        """Plans until stopped. Raises LogError and redis.RedisError; may then be called again."""
        while not stop.is_set():
            self.step()
            stop.wait(LOOK_SECONDS)
        self._lease.leave()

    def step(self) -> AuditPlan | None:
        """Publishes a plan if one is due; that plan. Raises LogError, redis.RedisError."""
        if not self._is_caught_up() or not self._lease.hold():
            return None
        now = self._now()
        if not self._is_due(self._reader.read(), now):
            return None
        plan = AuditPlan(
            effective_from=now + NOTICE,
            made_at=now,
            uniform_share=self._review.audit_share,
            budget_per_day=self._review.audits_per_day,
            strata=self._strata(now),
        )
        key = plan.effective_from.isoformat().encode()
        self._topics.append([Output(self._topic, plan.model_dump_json().encode(), key)])
        log.info(
            "audit_planned",
            effective_from=plan.effective_from.isoformat(),
            strata={stratum.name: stratum.probability for stratum in plan.strata},
        )
        return plan

    def _is_due(self, plans: Iterable[AuditPlan], now: datetime) -> bool:
        # A plan that begins later was made by a clock that was ahead: until then another one is needed.
        known = [plan for plan in plans if plan.effective_from <= now + NOTICE]
        if not known:
            return True
        last = max(known, key=lambda plan: plan.effective_from)
        if (last.uniform_share, last.budget_per_day) != (self._review.audit_share, self._review.audits_per_day):
            return True
        return last.budget_per_day is not None and now + NOTICE >= last.effective_from + EVERY

    def _strata(self, now: datetime) -> tuple[AuditStratum, ...]:
        if self._review.audits_per_day is None:
            return uniform(self._review.audit_share)
        items = audited_items(self._catalogue, now - WINDOW)
        if not items:
            return uniform(self._review.audit_share)
        days = max(now - items[0].at, SHORTEST) / timedelta(days=1)
        return allocate(
            [DrawnImage(item.quality, item.probability, item.bad) for item in items],
            days,
            budget_per_day=self._review.audits_per_day,
            uniform_share=self._review.audit_share,
        )
