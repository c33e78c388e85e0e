"""Counts committed verdicts, review items and dead letters, as a careful reader of the topics sees them."""

import json
import threading
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, TopicPartition

from ops.drills.publisher import RecordPosition


class VerdictCounter(ABC):
    """Reads the verdict and review topics from their beginning, on a thread of its own."""

    def __init__(self) -> None:
        self.verdicts: dict[RecordPosition, list[float]] = defaultdict(list)
        """When each event's verdicts were seen, in `time.monotonic` seconds; more than one entry is one too many."""
        self.failed: dict[RecordPosition, str] = {}
        """Why events could not be judged."""
        self._failed_and_passed: set[RecordPosition] = set()
        self._to_review: dict[str, RecordPosition] = {}
        self._items: set[str] = set()
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._read, name="drill-counter")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def missing(self, published: Mapping[RecordPosition, float], before: float = float("inf")) -> set[RecordPosition]:
        """Events that were published before `before` and have no verdict."""
        with self._lock:
            return {place for place, at in dict(published).items() if at < before and place not in self.verdicts}

    def judged_of(self, places: Iterable[RecordPosition]) -> list[RecordPosition]:
        """Those of the events that have a verdict."""
        with self._lock:
            return [place for place in places if place in self.verdicts]

    def twice(self) -> set[RecordPosition]:
        """Events with more than one verdict."""
        with self._lock:
            return {place for place, times in self.verdicts.items() if len(times) > 1}

    def unseen(self) -> set[RecordPosition]:
        """Events that a person had to see and cannot: failed ones that were let pass, and review items not written."""
        with self._lock:
            lacking = {place for verdict_id, place in self._to_review.items() if verdict_id not in self._items}
            return lacking | self._failed_and_passed

    def seen(self) -> int:
        """Verdicts seen, repeats counted."""
        with self._lock:
            return sum(map(len, self.verdicts.values()))

    def first_of(self, places: Set[RecordPosition]) -> float | None:
        """When the first verdict of these events was seen."""
        with self._lock:
            return min((self.verdicts[place][0] for place in places if place in self.verdicts), default=None)

    @abstractmethod
    def _next(self) -> Iterable[tuple[bool, bytes]]:
        """The values that came since, each with whether it is a review item. Waits a little where none have."""

    def _read(self) -> None:
        while not self._stopping.is_set():
            for is_item, value in self._next():
                self._count(is_item, json.loads(value))

    def _count(self, is_item: bool, value: Mapping[str, Any]) -> None:
        with self._lock:
            if is_item:
                self._items.add(value["verdict_id"])
                return
            place = RecordPosition(value["source"]["partition"], value["source"]["offset"])
            self.verdicts[place].append(time.monotonic())
            if value["status"] == "failed":
                self.failed[place] = value["failure"]["message"]
            if value["route"]["action"] == "review":
                self._to_review[value["verdict_id"]] = place
            elif value["status"] == "failed":
                self._failed_and_passed.add(place)


class KafkaVerdictCounter(VerdictCounter):
    """A read_committed consumer made with librdkafka: it shares no code with what it counts."""

    def __init__(self, bootstrap: str, topics: Mapping[str, str]) -> None:
        """`topics` names the verdict topic as `verdicts` and the review topic as `review`."""
        super().__init__()
        self._review_topic = topics["review"]
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"drill-{uuid4().hex}",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )
        known = self._consumer.list_topics(timeout=30).topics
        names = [topics["verdicts"], topics["review"]]
        self._consumer.assign([TopicPartition(name, p, 0) for name in names for p in known[name].partitions])

    def stop(self) -> None:
        super().stop()
        self._consumer.close()

    def _next(self) -> Iterable[tuple[bool, bytes]]:
        for record in self._consumer.consume(num_messages=500, timeout=0.1):
            value = record.value()
            if record.error() is None and value is not None:
                yield record.topic() == self._review_topic, value
