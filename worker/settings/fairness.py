"""How tenants share the workers."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveFloat, model_validator

from schemas.base import Name, Priority
from worker.settings.section import Section


class FairnessSettings(Section):
    """How tenants share the workers, and which events go first.

    When more events wait than the worker can judge in `delay_seconds`, events of a tenant that sent more than its share
    move to `kafka.topics.surplus`, so that they do not block other tenants' events in a partition. Workers judge them
    when the live topics leave capacity, and at least at `surplus_share`. Events over a quota go to the same topic.
    Quotas count events that need the engine, over all workers. Nothing is dropped.
    """

    defer_surplus: Literal["auto"] | bool = "auto"
    """Move events over a tenant's share or quota to the surplus topics. `auto` moves events over a share only while
    more than one tenant has sent events within a day. If false, events keep their order within a partition, tenants
    take turns only among the events that a worker has read, and quotas have no effect."""
    tenant_weights: dict[Name, PositiveFloat] = Field(default_factory=dict)
    """A tenant's share relative to other tenants while both have events waiting. Tenants that are not listed have 1."""
    delay_seconds: PositiveFloat = 2.0
    """How long, approximately, a tenant within its share may wait for other tenants."""
    surplus_share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.1
    """The engine's share for surplus events while live events wait."""
    priority_share: Annotated[float, Field(ge=0.01, le=0.8)] = 0.5
    """The engine's maximum share for priority events while other events wait."""
    priority_from: Priority = 90
    """Events with at least this priority go before others. So do events with the header `sluice-lane: priority` and
    events from `kafka.topics.priority`."""
    quota_per_second: PositiveFloat | None = None
    """Events per second of each tenant that `quotas` does not list. Default: no limit."""
    quotas: dict[Name, PositiveFloat] = Field(default_factory=dict)
    """Events per second, by tenant."""
    quota_burst_seconds: PositiveFloat = 10.0
    """A tenant that was idle may send its quota of this many seconds at once."""

    @model_validator(mode="after")
    def _leaves_a_share_for_live_events(self) -> Self:
        if self.surplus_share + self.priority_share > 0.9:
            raise ValueError(
                "surplus_share and priority_share are more than 0.9 together, which leaves too little for other events"
            )
        return self

    def weight(self, tenant: str) -> float:
        return self.tenant_weights.get(tenant, 1.0)

    def quota(self, tenant: str) -> float | None:
        """Events per second over all workers; None: no limit."""
        return self.quotas.get(tenant, self.quota_per_second)
