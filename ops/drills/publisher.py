"""Publishes image events at a steady rate, and remembers where each was written."""

import itertools
import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import KafkaError, Message, Producer
from PIL import Image

IMAGES = 8
"""So few that all but the first are found in the cache: a drill is about delivery, not about scoring."""


class RecordPosition(NamedTuple):
    """Where a record is in its topic."""

    partition: int
    offset: int


class Publisher(ABC):
    """A thread that publishes until `stop`."""

    def __init__(self, images: Path, *, rate: float) -> None:
        """`images` is a folder that the workers may read."""
        self.rate = rate
        """Events a second; a drill may change it. Infinity: as fast as it goes."""
        self.failure: Exception | None = None
        """Why it has stopped by itself."""
        self.value_of: Callable[[int], bytes] = self.event
        """The value of event i; a drill may mix in values that are no events."""
        self.published: dict[RecordPosition, float] = {}
        """When each record was acknowledged, in `time.monotonic` seconds."""
        self._images = images
        for i in range(IMAGES):
            Image.new("RGB", (48, 48), (i * 30, 255 - i * 30, 90)).save(images / f"{i}.png")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="drill-publisher")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when all that was sent is acknowledged."""
        self._stopping.set()
        self._thread.join()

    def event(self, i: int) -> bytes:
        """A good event."""
        path = self._images / f"{i % IMAGES}.png"
        return self.event_of(i, path)

    def event_of(self, i: int, path: Path) -> bytes:
        return image_event(i, {"kind": "file", "path": str(path)})

    @abstractmethod
    def _send(self, value: bytes) -> None:
        """Publishes a record; `published` has it once it is acknowledged."""

    @abstractmethod
    def _flush(self) -> None:
        """Returns when all that was sent is acknowledged."""

    def _publish(self) -> None:
        try:
            for i in itertools.count():
                if self._stopping.wait(1.0 / self.rate):
                    break
                self._send(self.value_of(i))
            self._flush()
        except Exception as error:  # noqa: BLE001  # the drill waits for events, and says why none come
            self.failure = error


class KafkaPublisher(Publisher):
    """Publishes with librdkafka, so that it shares no code with what is tested."""

    def __init__(self, bootstrap: str, topic: str, images: Path, *, partitions: int, rate: float) -> None:
        super().__init__(images, rate=rate)
        self._partitions = partitions
        self._turn = itertools.count()
        self._topic = topic
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 0,
            }
        )
        self.use_partitions(partitions)

    def use_partitions(self, count: int) -> None:
        """Publishes to partitions 0 to `count` - 1 from now on. Returns when they are known and have leaders: a record
        that is sent before, and again, may be acknowledged without its offset."""
        while self._partitions_with_leaders() < count:
            time.sleep(0.05)
        self._partitions = count

    def _partitions_with_leaders(self) -> int:
        found = self._producer.list_topics(self._topic, timeout=10).topics[self._topic].partitions
        return sum(partition.leader >= 0 for partition in found.values())

    def _send(self, value: bytes) -> None:
        partition = next(self._turn) % self._partitions
        while True:
            try:
                self._producer.produce(self._topic, value, partition=partition, on_delivery=self._delivered)
                break
            except BufferError:  # librdkafka's queue is full
                self._producer.poll(0.1)
        self._producer.poll(0)

    def _flush(self) -> None:
        self._producer.flush(60)

    def _delivered(self, error: KafkaError | None, record: Message) -> None:
        partition, offset = record.partition(), record.offset()
        if error is not None or partition is None or offset is None:
            raise RuntimeError(f"an event was not published: {error}")
        self.published[RecordPosition(partition, offset)] = time.monotonic()


def image_event(i: int, image: dict[str, str]) -> bytes:
    """Event i, of the image that a reference names."""
    return json.dumps(
        {
            "schema": "sluice.image-event/1",
            "id": f"event-{i}",
            "occurred_at": "2026-11-24T12:00:00Z",
            "image": image,
        }
    ).encode()
