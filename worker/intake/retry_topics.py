"""The retry topics: where an event waits for its image, so that its partition goes on.

There are up to three, each with a delay. An event passes through them in order and stays in the last one, coming back
after each delay, until its image is there or it is given up. All records of a topic wait equally long, so each of its
partitions is due in order.
"""

from collections.abc import Sequence

from worker.intake.deferral import Deferral, deferred_output
from worker.intake.log import Output, Record
from worker.intake.work import RecordJob
from worker.settings import IntakeSettings

MOST_REASON_CHARACTERS = 300
MOST_MOVED_BYTES = 900 * 1024
"""A larger record is not moved: with what we add it fits Kafka's own default limit of a topic, 1 MiB."""


class RetryTopics:
    """Moves events to the retry topics, and takes them up again with what was tried before. Pure."""

    def __init__(self, topics: Sequence[str], settings: IntakeSettings, *, max_event_bytes: int) -> None:
        self._tiers = list(zip(topics, settings.retry_delays_seconds, strict=False))
        self._keeps_key_order = settings.retry_keeps_key_order
        self._max_bytes = min(max_event_bytes, MOST_MOVED_BYTES)

    @property
    def longest_delay(self) -> float:
        """Seconds; 0 when nothing is moved."""
        return max((delay for _, delay in self._tiers), default=0.0)

    def take(self, record: Record) -> bool:
        """Whether the record's events may be moved. Not where the settings keep the order of each key and it has one,
        nor where they are too large."""
        if not self._tiers or (self._keeps_key_order and record.key is not None):
            return False
        size = len(record.value or b"") + len(record.key or b"")
        for name, value in record.headers:
            size += len(name) + len(value or b"")
        return size <= self._max_bytes

    def wait_seconds(self, deferral: Deferral, wall: float) -> float:
        """How long until the event is due. Never longer than the longest delay, whatever a clock said."""
        return min(deferral.due_ms / 1000 - wall, self.longest_delay)

    def output(self, job: RecordJob, reason: str, now: float, wall: float) -> Output:
        """The record that moves the job's event to its next retry topic. `now` and `wall` are the monotonic and the
        wall clock at one moment, in seconds."""
        record, before = job.work.record, job.work.deferral
        wall_ms = int(wall * 1000)
        if before is None:
            before = Deferral.model_validate(
                {"source": job.source, "first_seen_ms": record.timestamp_ms if record.timestamp_ms > 0 else wall_ms}
            )
        topic, delay = self._tiers[min(before.retries, len(self._tiers) - 1)]
        deferral = before.model_copy(
            update={
                "due_ms": wall_ms + int(delay * 1000),
                "reason": reason[:MOST_REASON_CHARACTERS],
                "retries": before.retries + 1,
                "attempts": job.attempts,
                "first_failed_ms": _to_wall(job.first_failed_at, now, wall),
                "probes": job.probes,
                "probed_since_ms": _to_wall(job.probed_since, now, wall),
            }
        )
        return deferred_output(record, job.event, deferral, topic)

    def restore(self, job: RecordJob, deferral: Deferral, now: float, wall: float) -> None:
        """Gives a job what was counted before its event was moved."""
        job.attempts = deferral.attempts
        job.first_failed_at = _to_monotonic(deferral.first_failed_ms, now, wall)
        job.probes = deferral.probes
        job.probed_since = _to_monotonic(deferral.probed_since_ms, now, wall)


def _to_wall(moment: float | None, now: float, wall: float) -> int | None:
    return None if moment is None else max(0, int((wall - (now - moment)) * 1000))


def _to_monotonic(milliseconds: int | None, now: float, wall: float) -> float | None:
    """Not after `now`: another machine's clock may be ahead of ours."""
    return None if milliseconds is None else now - max(0.0, wall - milliseconds / 1000)
