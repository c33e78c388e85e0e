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
CUT: Final = b"cut"
"""There when the prompt is not whole."""
MAX_PROMPT: Final = 400
"""Characters that the index keeps of the prompt of an item that is larger than MAX_ITEM."""
MAX_ITEM: Final = 1200
"""Bytes."""
_DECISION: Final = b"decision|"
_OPTIONAL: Final = ("prompt", "generator", "provenance", "failure", "labels", "audit")

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
        return place_of(self.fields[AT])

    @property
    def lane(self) -> tuple[str, str] | None:
        """The lane in which it waits, and for whom; None when it does not."""
        if self.item is None or self.state.status not in LANES:
            return None
        if self.state.status is Status.OPEN and self.state.assignee is not None:
            return "assigned", self.state.assignee
        return LANES[self.state.status], ""


def alone_cluster(item_id: str) -> str:
    """The cluster of an item that was split from its near duplicates. Not its id: that may name the others' cluster."""
    return f"alone|{item_id}"


def decision_field(partition: Partition, offset: int) -> bytes:
    """The field of a decision: sorted by name they are in the order of the log."""
    return _DECISION + b"%06d|%020d" % (partition.number, offset)


def place_of(field: bytes) -> tuple[Partition, int]:
    """What `at_field` wrote."""
    topic, number, offset = field.decode().rsplit("|", 2)
    return Partition(topic, int(number)), int(offset)


def at_field(partition: Partition, offset: int) -> bytes:
    return f"{partition.topic}|{partition.number}|{offset}".encode()


def cut(entry: Entry) -> bytes | None:
    """The item with its prompt cut; None when that is short enough."""
    if len(entry.fields.get(ITEM, b"")) <= MAX_ITEM:  # without parsing it
        return None
    item = entry.item
    if item is None or item.prompt is None or len(item.prompt) <= MAX_PROMPT:
        return None
    shorter = item.model_copy(update={"prompt": item.prompt[:MAX_PROMPT]})
    return compact(shorter)


def compact(item: ReviewItem) -> bytes:
    """The item as JSON, without what is absent and what only weighs: features, and the bytes of an inline image, which
    can be read from the log again."""
    if isinstance(item.image, InlineReference):
        item = item.model_copy(update={"image": InlineReference(bytes=b"")})
    # not pydantic's exclude_defaults, which would drop the kind of the image
    absent = {name for name in _OPTIONAL if not getattr(item, name)}
    return item.model_dump_json(exclude={"schema_", "features", *absent}).encode()
