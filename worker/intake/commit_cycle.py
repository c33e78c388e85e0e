"""Decides when to commit, and handles the outcome. One commit at a time."""

import random

import structlog

from worker.intake.committer import CommitOutcome, Committer
from worker.intake.ledger import Batch, OffsetLedger
from worker.intake.log import CommitFailed, Fenced, Output
from worker.judging.retries import RetryPolicy
from worker.settings import IntakeSettings
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)

COMMITS_TO_THE_BOUND = 4
"""A commit takes at most 1/4 of `max_records_in_flight`, so that reading goes on while it runs."""


class CommitCycle:
    """Passes finished records from the ledger to the committer, once per interval, or sooner when many wait.

    Outputs stay in the ledger until their commit has succeeded. A failed commit is retried with backoff, without
    scoring again. Call it from the loop's thread only.
    """

    def __init__(
        self,
        committer: Committer,
        ledger: OffsetLedger[Output],
        patience: RetryPolicy,
        settings: IntakeSettings,
        metrics: Metrics,
        rng: random.Random,
    ) -> None:
        self._committer = committer
        self._ledger = ledger
        self._patience = patience
        self._settings = settings
        self._metrics = metrics
        self._rng = rng
        self._most = max(1, settings.max_records_in_flight // COMMITS_TO_THE_BOUND)
        self._running: Batch[Output] | None = None
        self._started = 0.0
        self._due = 0.0
        self._failures = 0

    @property
    def busy(self) -> bool:
        """A commit is under way."""
        return self._running is not None

    def turn(self, now: float, *, hurry: bool) -> None:
        """Starts a commit when one is due; with `hurry`, as soon as something is finished.

        Raises Fenced when the running commit has not returned within `commit_patience_seconds`.
        """
        if self._running is not None:
            if now - self._started > self._settings.commit_patience_seconds:
                raise Fenced(
                    f"a commit has not returned for {now - self._started:.0f} s; starting over from what is committed"
                )
            return
        if now < self._due and (self._failures or not (hurry or self._ledger.held >= self._most)):
            return
        batch = self._ledger.take(self._most)
        if batch is not None:
            self._running = batch
            self._started = now
            self._committer.submit(batch)

    def finish(self, outcome: CommitOutcome, now: float) -> bool:
        """Returns whether the commit succeeded; a failed one is retried. Raises any error but CommitFailed."""
        self._running = None
        self._metrics.stage_seconds.labels("commit").observe(outcome.seconds)
        if outcome.error is None:
            self._ledger.settle(outcome.batch)
            self._failures = 0
            self._due = now + self._settings.commit_interval_seconds
            return True
        if not isinstance(outcome.error, CommitFailed):
            raise outcome.error
        self._failures += 1
        self._metrics.commit_failures.inc()
        delay = self._patience.delay(self._failures, self._rng)
        self._due = now + delay
        logger.warning(
            "commit_failed",
            error=str(outcome.error),
            records=outcome.batch.records,
            failures=self._failures,
            again_in_seconds=round(delay, 3),
        )
        return False

    def close(self) -> None:
        self._committer.close()
