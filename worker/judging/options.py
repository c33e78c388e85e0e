"""In what a pipeline of one caller may differ from another's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from worker.judging.lanes import LaneShares
from worker.judging.retries import RetryPolicy
from worker.judging.stores import Stores


@dataclass(frozen=True, slots=True)
class PipelineOptions:
    """How much is under way at once, and how patient the caller is."""

    batch_size: int
    batch_wait_seconds: float
    batches_in_flight: int
    prepare_threads: int
    retries: RetryPolicy
    """Of fetches."""
    store_outage_seconds: float = 600.0
    """An object that its bucket has not given for so long is given up, even if the bucket is down."""
    engine_outage_seconds: float = 60.0
    """An engine that has answered no batch for so long is a health problem."""
    hold_seconds: float = float("inf")
    """A job that may be deferred, and would have to wait longer for its image, is."""
    deferred_deadline_seconds: float = float("inf")
    """The deadline of fetches for jobs that may be deferred; `retries` has that of all others."""
    waits_for_outages: bool = True
    """Whether jobs wait while their store or the engine is down; otherwise they fail at once, as retriable."""
    wants_features: bool = False
    """Whether judgements that send an event to review must carry the features."""
    stores: Stores | None = None
    lane_shares: LaneShares = field(default_factory=LaneShares)
    tenant_weights: Mapping[str, float] = field(default_factory=dict)
    """How much of a lane a tenant gets, compared with others; 1 for those not named."""

    def tenant_weight(self, tenant: str) -> float:
        return self.tenant_weights.get(tenant, 1.0)

    @property
    def window(self) -> int:
        """So many images are being prepared, batched or scored at once."""
        return 2 * self.prepare_threads + self.batch_size * (self.batches_in_flight + 1)
