"""One event on its way to a judgement."""

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, TypedDict

from schemas import ImageEvent
from worker.judging.lanes import Lane

if TYPE_CHECKING:
    from worker.telemetry.tracing import EventTrace


class TimingFields(TypedDict):
    """The fields of a `schemas.Timings`, in milliseconds."""

    fetch_ms: float
    decode_ms: float
    engine_ms: float
    total_ms: float


@dataclass(slots=True, eq=False)
class Job:
    """One event to judge. Times are seconds of the monotonic clock, stages in milliseconds.

    It knows nothing of where the event came from: each caller of the pipeline adds what it needs in a subclass.
    """

    event: ImageEvent
    started_at: float
    _: KW_ONLY
    lane: Lane = Lane.LIVE
    trace: "EventTrace | None" = None
    """None where the event is not traced."""
    content_hash: str | None = None
    attempts: int = 0
    """Failed fetches that count against the limit."""
    first_failed_at: float | None = None
    asked_at: float = 0.0
    """When its store was last asked for it."""
    others_were_given: bool = False
    """Between its first denial and that moment the store was asked for another image, and gave it."""
    probes: int = 0
    """Fetches that failed while the store seemed to be down, since `probed_since`."""
    probed_since: float | None = None
    is_held: bool = False
    """It waits for a store that is down."""
    may_be_deferred: bool = False
    """Its owner can move it out of the way of others."""
    waits_since: float | None = None
    """When it first had to wait for another attempt or for its store."""
    is_alone: bool = False
    """Nothing may be prepared or scored beside it."""
    engine_failures: int = 0
    """Failures on this image in an engine that works."""
    engine_deaths: int = 0
    """So often the engine stopped working with this image in it."""
    fetch_ms: float = 0.0
    decode_ms: float = 0.0
    engine_ms: float = 0.0

    def fetched(self, content_hash: str) -> None:
        """Called once the bytes are there, or known to be those of an earlier event."""
        self.content_hash = content_hash

    def timings(self, now: float) -> TimingFields:
        return {
            "fetch_ms": self.fetch_ms,
            "decode_ms": self.decode_ms,
            "engine_ms": self.engine_ms,
            "total_ms": round((now - self.started_at) * 1000, 3),
        }
