"""The plans of the audit, as the topic has them."""

from typing import Final

import structlog
from pydantic import ValidationError

from schemas import AuditPlan
from worker.intake.log import Partition
from worker.review.topics import Topics
from worker.settings import Settings
from worker.trust.drawing import AuditDraws

log = structlog.get_logger(__name__)

WAIT_SECONDS: Final = 0.05


class AuditPlanReader:
    """Reads the topic of plans from its beginning, and then what is new. For one thread."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._topic = settings.kafka.topics.audit_plans
        self._share = settings.review.audit_share
        self._topics = topics
        self._positions: dict[Partition, int] = {}
        self._plans: list[AuditPlan] = []

    def read(self) -> list[AuditPlan]:
        """All plans up to the present end of the topic. Records that are no plans are logged and left out. Raises
        LogError."""
        ends = self._topics.ends(self._topic)
        self._positions = {p: self._positions.get(p, 0) for p in ends}
        if any(self._positions[p] > end for p, end in ends.items()):  # another log
            self._positions, self._plans = dict.fromkeys(ends, 0), []
        while any(self._positions[p] < end for p, end in ends.items()):
            batch = self._topics.read(self._positions, WAIT_SECONDS)
            for record in batch.records:
                try:
                    self._plans.append(AuditPlan.model_validate_json(record.value or b""))
                except ValidationError as error:
                    log.warning("audit_plan_unreadable", offset=record.offset, errors=error.error_count())
            self._positions |= batch.positions
        return list(self._plans)

    def draws(self) -> AuditDraws:
        """Draws by all plans up to the present end of the topic. Raises LogError."""
        return AuditDraws(self.read(), self._share)
