"""Decides when to commit, and handles the outcome. One commit at a time."""

import random

import structlog

from worker.intake.committer import CommitOutcome, Committer
from worker.intake.ledger import Batch, OffsetLedger
from worker.intake.log import CommitFailed, CommitRefused, Fenced, Output, OutputsTooLarge
from worker.intake.shortening import shorten
from worker.judging.retries import RetryPolicy
from worker.settings import IntakeSettings
from worker.telemetry.metrics import Metrics

logger = structlog.get_logger(__name__)

UNHEALTHY_SECONDS = 20.0
"""How long commits may fail or wait before the health check says so; a refusal that lasts says so at once."""
REMIND_SECONDS = 60.0
"""How often a failure that repeats is logged again."""
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
        self._failing_since: float | None = None
        self._failure: CommitFailed | None = None
        self._logged = ("", float("-inf"))

    @property
    def busy(self) -> bool:
        """A commit is under way."""
        return self._running is not None

    def turn(self, now: float, *, hurry: bool, not_due: int = 0) -> None:
        """Starts a commit when one is due; with `hurry`, as soon as something is finished. `not_due`: records that are
        held and that a commit cannot free.

        Raises Fenced when the running commit has not returned within `commit_patience_seconds`.
        """
        if self._running is not None:
            if now - self._started > self._settings.commit_patience_seconds:
                raise Fenced(
                    f"a commit has not returned for {now - self._started:.0f} s; starting over from what is committed"
                )
            return
        if now < self._due and (self._failures or not (hurry or self._ledger.held - not_due >= self._most)):
            return
        batch = self._ledger.take(self._most)
        if batch is not None:
            self._running = batch
            self._started = now
            self._committer.submit(batch)

    def health_problem(self, now: float) -> str | None:
        """Why nothing is committed, when that has lasted; None when all is well. From any thread."""
        failure, since = self._failure, self._failing_since
        if failure is not None and since is not None:
            if isinstance(failure, CommitRefused) or now - since >= UNHEALTHY_SECONDS:
                return f"verdicts cannot be written for {now - since:.0f} s: {failure}"
        elif self._running is not None and now - self._started >= UNHEALTHY_SECONDS:
            return f"a commit has not returned for {now - self._started:.0f} s"
        return None

    def finish(self, outcome: CommitOutcome, now: float) -> bool:
        """Returns whether the commit succeeded; a failed one is retried. Raises any error but CommitFailed."""
        self._running = None
        self._metrics.stage_seconds.labels("commit").observe(outcome.seconds)
        if outcome.error is None:
            self._ledger.settle(outcome.batch)
            if self._failures:
                logger.info("commits_succeed_again", failures=self._failures)
            self._failures = 0
            self._failing_since = self._failure = None
            self._due = now + self._settings.commit_interval_seconds
            return True
        if not isinstance(outcome.error, CommitFailed):
            raise outcome.error
        self._metrics.commit_failures.inc()
        if isinstance(outcome.error, OutputsTooLarge) and self._shorten(outcome.batch, outcome.error):
            self._due = now
            return False
        self._failures += 1
        self._failure = outcome.error
        self._failing_since = now if self._failing_since is None else self._failing_since
        delay = self._patience.delay(self._failures, self._rng)
        self._due = now + delay
        self._log_failure(outcome, delay, now)
        return False

    def _shorten(self, batch: Batch[Output], error: OutputsTooLarge) -> bool:
        """Makes the outputs that are too large fit; False when one cannot be."""
        shortened = {at: shorten(batch.outputs[at], limit) for at, limit in error.limits.items()}
        fitting = {at: output for at, output in shortened.items() if output is not None}
        self._ledger.replace_outputs(batch, fitting)
        logger.warning(
            "outputs_shortened",
            error=str(error),
            outputs=len(fitting),
            note="raise the topics' max.message.bytes to kafka.max_message_bytes to have them whole",
        )
        return len(fitting) == len(shortened)

    def _log_failure(self, outcome: CommitOutcome, delay: float, now: float) -> None:
        """Logs a failure when it is another one, and once a minute while it repeats."""
        text, at = self._logged
        if str(outcome.error) == text and now - at < REMIND_SECONDS:
            return
        self._logged = (str(outcome.error), now)
        logger.warning(
            "commit_failed",
            error=str(outcome.error),
            records=outcome.batch.records,
            failures=self._failures,
            again_in_seconds=round(delay, 3),
        )

    def close(self) -> None:
        self._committer.close()
