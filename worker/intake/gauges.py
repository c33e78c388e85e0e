"""What a member shows of itself: its lag, what it holds, and partitions that do not move."""

from collections import Counter
from collections.abc import Mapping, Set

from worker.intake.delayed import DelayedJobs
from worker.intake.ledger import OffsetLedger, Ticket
from worker.intake.log import Lag, Log, Output, Partition
from worker.intake.memory_return import MemoryReturn
from worker.intake.surplus_backlog import SurplusBacklog
from worker.intake.watchdog import Watchdog
from worker.intake.work import RecordJob
from worker.judging.pipeline import JudgingPipeline
from worker.telemetry.metrics import Metrics

GAUGE_SECONDS = 0.5


class MemberGauges:
    """Updates the gauges periodically, and detects partitions without progress. For the member's thread."""

    def __init__(
        self,
        log: Log,
        ledger: OffsetLedger[Output],
        pipeline: JudgingPipeline[RecordJob],
        delayed: DelayedJobs,
        surplus: SurplusBacklog,
        metrics: Metrics,
        *,
        stall_seconds: float,
    ) -> None:
        self._log = log
        self._ledger = ledger
        self._pipeline = pipeline
        self._delayed = delayed
        self._surplus = surplus
        self._metrics = metrics
        self._stall_seconds = stall_seconds
        self._watchdog = Watchdog(stall_seconds)
        self._settled: dict[Partition, int] = {}
        self._sizes: Mapping[str, int] = {}
        self._due = 0.0
        self._memory = MemoryReturn()

    def assigned(self, partitions: Set[Partition]) -> None:
        self._settled.update(dict.fromkeys(partitions, 0))

    def committed(self, offsets: Mapping[Partition, int]) -> None:
        self._settled.update((p, o) for p, o in offsets.items() if p in self._settled)

    def dropped(self, partition: Partition) -> None:
        self._settled.pop(partition, None)

    def turn(self, now: float, paused: Set[Partition], full: Set[Partition]) -> None:
        """Brings the gauges up to date where they are older than GAUGE_SECONDS. `full`: those of the paused partitions
        of which enough was read, though there is room for others."""
        if now < self._due:
            return
        self._due = now + GAUGE_SECONDS
        lag = self._log.lag()
        self._sizes = lag.partitions
        metrics = self._metrics
        metrics.set_lag({(p.topic, p.number): self._uncommitted(p, lag) for p in lag.by_partition})
        metrics.set_oldest(self._ledger.oldest_timestamp_ms())
        self._memory.turn(self._pipeline.is_idle, self._pipeline.begun, now)
        metrics.records_in_flight.set(self._ledger.held)
        metrics.bytes_in_flight.set(self._ledger.held_bytes)
        metrics.records_not_due.set(len(self._delayed))
        # What is not due, and what waits for its share, is no alarm.
        metrics.partitions_paused.set(len(paused - self._delayed.partitions - full))
        down = self._pipeline.stores_down()
        metrics.set_stores_down([store.name for store in down])
        metrics.breaker_open.set(self._pipeline.is_halted or any(store.is_bucket for store in down))
        self._watchdog.observe(self._settled, self._behind(lag, paused), now)

    @property
    def sizes(self) -> Mapping[str, int]:
        """How many partitions each topic had when the gauges were set last."""
        return self._sizes

    def health_problems(self, now: float) -> tuple[str, ...]:
        """Partitions without progress. May be called from any thread."""
        return tuple(
            f"partition {p.topic}/{p.number} is behind and has not moved for {self._stall_seconds:g} s"
            for p in sorted(self._watchdog.stalled(now))
        )

    def waiting(self) -> set[Ticket]:
        """Records that wait for a store that is down, until they are due, or for room."""
        held = (job.work.ticket for job in self._pipeline.held())
        return {*self._delayed.tickets(), *self._surplus.tickets(), *held}

    def _uncommitted(self, partition: Partition, lag: Lag) -> int:
        """Records from the committed offset to the end."""
        oldest, end = self._ledger.oldest_in(partition), lag.ends.get(partition)
        if oldest is None or end is None:
            return lag.by_partition[partition] + self._ledger.held_in(partition)
        return max(0, end - oldest.offset)

    def _behind(self, lag: Lag, paused: Set[Partition]) -> frozenset[Partition]:
        """Partitions with work to do that is theirs to do now.

        Not those whose oldest record waits until others' have been dispatched, until it is due, or for a store that is
        down, which the store's own health problem reports; nor those not read because enough is under way: a long
        backlog is no fault.
        """
        queued = Counter(job.work for job in self._pipeline.queued)
        waiting = self.waiting() | {work.ticket for work, jobs in queued.items() if jobs == work.remaining}
        return frozenset(
            p
            for p in self._settled
            if (oldest := self._ledger.oldest_in(p)) not in waiting
            and (oldest is not None or (lag.by_partition.get(p) and p not in paused and p not in lag.held))
        )
