"""Review queues that hold more than their reviewers can take: when that is so, and what then happens to an image.

An overload rule can only make a route stricter: an image that would have been reviewed is reviewed, in this queue or
another one, or rejected. It never passes.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from worker.policy.document import CapacityEntry

ENDS_BELOW: Final = 0.8
"""An overload ends when all that waits is below this share of the capacity, so that it does not begin and end with
every item."""


@dataclass(frozen=True, slots=True)
class QueueLoad:
    """What waits in a review queue: `open` items, the oldest of them for `oldest_seconds`."""

    open: int
    oldest_seconds: float


ReviewLoad = Mapping[str, QueueLoad]
"""What waits, by queue. A queue that is not in it is empty."""

Overloaded = tuple[str, ...]
"""Queues over their capacity, in order."""

_EMPTY: Final = QueueLoad(0, 0.0)


def overloaded_queues(
    capacities: Mapping[str, CapacityEntry], load: ReviewLoad | None, before: Overloaded
) -> Overloaded:
    """The queues that are over their capacity, where `before` are those that were. None where `load` is not known."""
    if load is None:
        return ()
    return tuple(
        sorted(
            name
            for name, capacity in capacities.items()
            if _is_reached(capacity, load.get(name, _EMPTY), ENDS_BELOW if name in before else 1.0)
        )
    )


def _is_reached(capacity: CapacityEntry, load: QueueLoad, share: float) -> bool:
    too_many = capacity.open is not None and load.open >= share * capacity.open
    too_old = capacity.oldest_minutes is not None and load.oldest_seconds >= share * 60 * capacity.oldest_minutes
    return too_many or too_old


def is_drawn(event_id: str, queue: str, share: float) -> bool:
    """Whether an event is among the `share` of a queue's images that are reviewed: each time the same ones, on every
    worker. An event that is drawn for a share is drawn for every larger one."""
    digest = hashlib.sha256(f"sluice.overload\0{queue}\0{event_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64
