"""A message and where it stands in the log."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from schemas import Decision, ReviewItem
from worker.intake.log import Partition

T = TypeVar("T", ReviewItem, Decision)


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    message: T
    partition: Partition
    offset: int
