"""How tenants share the workers."""

from typing import Annotated, Self

from pydantic import Field, PositiveFloat, model_validator

from schemas.base import Name, Priority
from worker.settings.section import Section


class FairnessSettings(Section):
    """How tenants share the workers, and which events go first.

    While more events wait than the worker judges in `delay_seconds`, a tenant that has sent more than its share has the
    rest of its events moved to `kafka.topics.surplus`, where they do not stand before others' in a partition. They are
    judged as the live topics leave room, and at least at `surplus_share`. Quotas count events that need the engine,
    over all workers; what is over goes there too. Nothing is dropped.
    """

    defer_surplus: bool = True
    """Move what is over a tenant's share or quota. Otherwise all events keep their order within a partition, tenants
    take turns only among what a worker has read, and quotas have no effect."""
    tenant_weights: dict[Name, PositiveFloat] = Field(default_factory=dict)
    """How much a tenant gets compared with others while both wait; 1 for tenants not named."""
    delay_seconds: PositiveFloat = 2.0
    """How long a tenant within its share may wait for others, about."""
    surplus_share: Annotated[float, Field(ge=0.01, le=0.5)] = 0.1
    """Of the engine, for surplus events while live ones wait."""
    priority_share: Annotated[float, Field(ge=0.01, le=0.8)] = 0.5
    """Of the engine, at most, for events with priority while others wait."""
    priority_from: Priority = 90
    """Events of at least this priority go before others. So do those with the header `sluice-lane: priority`, and those
    from `kafka.topics.priority`."""
    quota_per_second: PositiveFloat | None = None
    """Events a second of each tenant that `quotas` does not name; absent: no limit."""
    quotas: dict[Name, PositiveFloat] = Field(default_factory=dict)
    """Events a second, by tenant."""
    quota_burst_seconds: PositiveFloat = 10.0
    """A tenant that was silent may send its quota of so many seconds at once."""

    @model_validator(mode="after")
    def _leaves_a_share_for_live_events(self) -> Self:
        if self.surplus_share + self.priority_share > 0.9:
            raise ValueError(
                "surplus_share and priority_share are more than 0.9 together, which leaves others too little"
            )
        return self

    def weight(self, tenant: str) -> float:
        return self.tenant_weights.get(tenant, 1.0)

    def quota(self, tenant: str) -> float | None:
        """Events a second over all workers; None: no limit."""
        return self.quotas.get(tenant, self.quota_per_second)
