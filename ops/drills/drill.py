"""What a drill is: a kind of fault, and what it is made on."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from ops.drills.bench import Bench
from ops.drills.embedded_bench import EmbeddedBench

SESSION_SECONDS: Final = 3.0
TRANSACTION_SECONDS: Final = 5.0
REBALANCE_SECONDS: Final = 1.0
SETTINGS: Final[dict[str, Any]] = {
    "kafka_settings": {
        "session_timeout_seconds": SESSION_SECONDS,
        "transaction_timeout_seconds": TRANSACTION_SECONDS,
    },
    "intake_settings": {"rebalance_seconds": REBALANCE_SECONDS, "drain_seconds": 5.0},
}
"""Short times, so that a drill is short; nothing else differs from the defaults."""


@dataclass(frozen=True, slots=True)
class Drill:
    """A kind of fault on Kafka. `run` makes it `repeats` times on a running bench, and notes each recovery."""

    name: str
    what: str
    run: Callable[[Bench, int], None]
    repeats: int
    """How often the long run makes it."""
    partitions: int = 4
    rate: float = 40.0
    needs_store: bool = False
    """Whether the bench must have an object store."""


@dataclass(frozen=True, slots=True)
class EmbeddedDrill:
    """A kind of fault on the embedded log."""

    name: str
    what: str
    run: Callable[[EmbeddedBench, int], None]
    repeats: int
    rate: float = 40.0
    needs_small_disk: bool = False
    """Whether the data folder must lie on a disk that can be filled."""


AnyDrill = Drill | EmbeddedDrill
