"""The lanes that share a pipeline, and how much each gets while all of them have work."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

LONG_SHARE: Final = 0.2
"""Of what both surplus lanes get, the part of the long one."""


class Lane(IntEnum):
    """Where an event waits. Each lane gets its share of the pipeline while it has work; what a lane does not use goes
    to the others."""

    PRIORITY = 0
    LIVE = 1
    SURPLUS = 2
    """Events of a tenant that had sent more than its share, from `kafka.topics.surplus`."""
    SURPLUS_LONG = 3
    """The same, from `kafka.topics.surplus_long`: events far behind others of their tenant."""

    @property
    def is_surplus(self) -> bool:
        return self >= Lane.SURPLUS


@dataclass(frozen=True, slots=True)
class LaneShares:
    """The shares of the priority lane and of both surplus lanes together; the live lane gets the rest."""

    priority: float = 0.5
    surplus: float = 0.1

    def weights(self) -> Mapping[Lane, float]:
        return {
            Lane.PRIORITY: self.priority,
            Lane.LIVE: 1.0 - self.priority - self.surplus,
            Lane.SURPLUS: self.surplus * (1.0 - LONG_SHARE),
            Lane.SURPLUS_LONG: self.surplus * LONG_SHARE,
        }
