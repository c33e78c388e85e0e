"""How the stream runs the judging pipeline."""

from worker.judging.lanes import LaneShares
from worker.judging.options import PipelineOptions
from worker.judging.retries import RetryPolicy
from worker.settings import FairnessSettings, IntakeSettings


def stream_options(settings: IntakeSettings, fairness: FairnessSettings) -> PipelineOptions:
    """A stream waits for what is down, and its review items carry features."""
    return PipelineOptions(
        batch_size=settings.batch_size,
        batch_wait_seconds=settings.batch_wait_seconds,
        batches_in_flight=settings.batches_in_flight,
        prepare_threads=settings.prepare_threads,
        retries=RetryPolicy(
            settings.max_attempts,
            settings.retry_base_seconds,
            settings.retry_max_seconds,
            settings.retry_deadline_seconds,
        ),
        store_outage_seconds=settings.outage_seconds,
        hold_seconds=settings.retry_hold_seconds,
        deferred_deadline_seconds=settings.retry_topics_deadline_seconds,
        engine_outage_seconds=settings.engine_outage_seconds,
        wants_features=True,
        lane_shares=LaneShares(priority=fairness.priority_share, surplus=fairness.surplus_share),
        tenant_weights=fairness.tenant_weights,
    )
