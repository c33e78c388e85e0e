"""Writes actions to the topics and, once stored there, to the index."""

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import redis
import structlog

from schemas import AuditEntry, Decision, ReviewItem
from worker.intake.log import LogError, Output
from worker.review.errors import NotRecorded
from worker.review.index.entry import Entry
from worker.review.index.index import Index
from worker.review.item_state import ItemState, after
from worker.review.placed import Placed
from worker.review.topics import Topics
from worker.settings import TopicSettings

if TYPE_CHECKING:
    from worker.review.decision_traces import DecisionTraces

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class PendingDecision:
    """A decision about to be recorded, and what it is made about."""

    entry: Entry
    item: ReviewItem
    decision: Decision


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An audit entry: who did what to which items."""

    actor: str
    action: str
    subjects: tuple[str, ...] = ()
    detail: Mapping[str, str] | None = None


class Recorder:
    """A decision counts when the log has it. The index follows at once or, should this process die in between, by the
    projector. Safe for many threads."""

    def __init__(
        self,
        topics: Topics,
        names: TopicSettings,
        index: Index,
        now: Callable[[], datetime],
        traces: "DecisionTraces | None" = None,
    ) -> None:
        """`traces`: None where nothing is traced."""
        self._topics = topics
        self._names = names
        self._index = index
        self._now = now
        self._traces = traces

    def decision(self, item: ReviewItem, reviewer: str, outcome: Any, token: int, **more: Any) -> Decision:
        """A decision made now, with an id of its own where `more` has none."""
        fields = {
            "decision_id": uuid.uuid4().hex,
            "item_id": item.item_id,
            "verdict_id": item.verdict_id,
            "event_id": item.event_id,
            "tenant": item.tenant,
            "queue": item.queue,
            "reviewer": reviewer,
            "outcome": outcome,
            "fencing_token": token,
            "decided_at": self._now(),
        }
        return Decision(**{**fields, **more})

    def commit(
        self,
        steps: Sequence[PendingDecision],
        actor: str,
        action: str | None = None,
        detail: Mapping[str, str] | None = None,
    ) -> dict[str, ItemState]:
        """Records decisions, with one entry of the audit for each act, `action` or else named by its outcome, which
        says `detail`, too.

        Returns the items' states by id. Raises NotRecorded.
        """
        if not steps:
            return {}
        decisions = [step.decision for step in steps]
        acts: dict[tuple[int, str], list[Decision]] = {}
        for decision in decisions:
            acts.setdefault((decision.fencing_token, action or decision.outcome), []).append(decision)
        audited = [
            self._audit(
                AuditRecord(
                    actor,
                    name,
                    tuple(d.item_id for d in made),
                    {"decision_id": made[0].decision_id, **(detail or {})},
                )
            )
            for (_, name), made in acts.items()
        ]
        try:
            with self._traced(steps) as headers:
                outputs = [
                    Output(
                        self._names.decisions,
                        decision.model_dump_json().encode(),
                        decision.item_id.encode(),
                        headers.get(decision.item_id, ()),
                    )
                    for decision in decisions
                ]
                places = self._topics.append([*outputs, *audited])
        except LogError as error:
            raise NotRecorded(f"not recorded yet ({error}); send it again with the same decision id") from error
        placed = [Placed(decision, *place) for decision, place in zip(decisions, places, strict=False)]
        try:
            entries = self._index.apply(placed)
        except redis.RedisError as error:
            # The log has it, so it is decided; the projector brings it into the index.
            log.warning("index_behind", error=f"{type(error).__name__}: {error}")
            return {step.item.item_id: after(step.entry.state, step.decision) for step in steps}
        return {item_id: entry.state for item_id, entry in entries.items()}

    def note(self, acts: Sequence[AuditRecord]) -> None:
        """Writes to the audit alone. Raises LogError."""
        self._topics.append([self._audit(act) for act in acts])

    def _traced(
        self, steps: Sequence[PendingDecision]
    ) -> AbstractContextManager[Mapping[str, tuple[tuple[str, bytes], ...]]]:
        """Gives the headers that put decisions into the traces of their items, by item."""
        if self._traces is None:
            return nullcontext({})
        return self._traces.recording([(step.item, step.decision, step.entry.at) for step in steps])

    def _audit(self, act: AuditRecord) -> Output:
        detail = dict(act.detail or {})
        entry = AuditEntry(at=self._now(), actor=act.actor, action=act.action, subjects=act.subjects, detail=detail)
        return Output(self._names.audit, entry.model_dump_json().encode(), act.actor.encode())
