"""Events of the surplus topics that were read and wait for room."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from worker.intake.ledger import Ticket
from worker.intake.log import Partition, Record


class MovedRecords(NamedTuple):
    """One record of a surplus topic: a moved record, or a pack."""

    ticket: Ticket
    record: Record
    events: int
    """How many moved records it holds, each of one event."""


class SurplusBacklog:
    """Keeps moved records as bytes until the pipeline has room for their events, in the order read. For the member's
    thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[MovedRecords]] = {}
        self._records: Counter[str] = Counter()

    def waiting(self, topic: str) -> int:
        """Moved records of a topic that wait; those of a pack count one by one."""
        return self._records[topic]

    def tickets(self) -> Iterator[Ticket]:
        return (moved.ticket for of_topic in self._waiting.values() for moved in of_topic)

    def push(self, moved: MovedRecords) -> None:
        topic = moved.ticket.partition.topic
        self._waiting.setdefault(topic, deque()).append(moved)
        self._records[topic] += moved.events

    def pop(self, topic: str, most: int) -> list[MovedRecords]:
        """The next of a topic, until they are at least `most` records."""
        taken: list[MovedRecords] = []
        of_topic = self._waiting.get(topic)
        while of_topic and most > 0:
            moved = of_topic.popleft()
            most -= moved.events
            self._records[topic] -= moved.events
            taken.append(moved)
        return taken

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Forgets what came from partitions that are no longer the member's."""
        gone = frozenset(partitions)
        for topic in {partition.topic for partition in gone} & self._waiting.keys():
            kept = [moved for moved in self._waiting[topic] if moved.ticket.partition not in gone]
            self._waiting[topic] = deque(kept)
            self._records[topic] = sum(moved.events for moved in kept)
