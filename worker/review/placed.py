"""A message and where it stands in the log."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas import Decision, ReviewItem
from worker.intake.log import Partition

T = TypeVar("T", ReviewItem, Decision)


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """`written_at` is when the record was written, in seconds since the epoch; 0 where that does not matter."""

    message: T
    partition: Partition
    offset: int
    written_at: float = 0.0
