"""An item as the index keeps it, and how it is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from schemas import Decision, InlineReference, ReviewItem
from worker.intake.log import Partition
from worker.review.answers import Status
from worker.review.item_state import ItemState, fold

ITEM: Final = b"item"
AT: Final = b"at"
CLUSTER: Final = b"cluster"
DUE: Final = b"due"
_DECISION: Final = b"decision|"

LANES: Final = {
    Status.OPEN: "open",
    Status.ESCALATED: "escalated",
    Status.HELD: "held",
    Status.GOLD: "gold",
}


@dataclass(frozen=True)
class Entry:
    """`fields` is the item's hash. An entry without an item holds decisions that were read before it."""

    fields: Mapping[bytes, bytes]

    @cached_property
    def item(self) -> ReviewItem | None:
        text = self.fields.get(ITEM)
        return ReviewItem.model_validate_json(text) if text is not None else None

    @cached_property
    def state(self) -> ItemState:
        stored = sorted(name for name in self.fields if name.startswith(_DECISION))
        return fold(Decision.model_validate_json(self.fields[name]) for name in stored)

    @property
    def cluster(self) -> str:
        return self.fields[CLUSTER].decode()

    @property
    def due(self) -> float:
        return float(self.fields[DUE])

    @property
    def at(self) -> tuple[Partition, int]:
        """Where in the log the item stands."""
        topic, number, offset = self.fields[AT].decode().split("|")
        return Partition(topic, int(number)), int(offset)

    @property
    def lane(self) -> tuple[str, str] | None:
        """The lane in which it waits, and for whom; None when it does not."""
        if self.item is None or self.state.status not in LANES:
            return None
        if self.state.status is Status.OPEN and self.state.assignee is not None:
            return "assigned", self.state.assignee
        return LANES[self.state.status], ""


def decision_field(partition: Partition, offset: int) -> bytes:
    """The field of a decision: sorted by name they are in the order of the log."""
    return _DECISION + b"%06d|%020d" % (partition.number, offset)


def at_field(partition: Partition, offset: int) -> bytes:
    return f"{partition.topic}|{partition.number}|{offset}".encode()


def slim(item: ReviewItem) -> ReviewItem:
    """Without what only weighs: features, and the bytes of an inline image, which can be read from the log again."""
    image = InlineReference(bytes=b"") if isinstance(item.image, InlineReference) else item.image
    return item.model_copy(update={"features": {}, "image": image})
