"""Publishes image events at a steady rate, and remembers where each was written."""

import itertools
import json
import threading
import time
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


class Publisher:
    """A thread that publishes until `stop`, with librdkafka, so that it shares no code with what is tested."""

    def __init__(self, bootstrap: str, topic: str, images: Path, *, partitions: int, rate: float) -> None:
        """`rate` is events a second. `images` is a folder that the workers may read."""
        self._partitions = partitions
        self.failure: Exception | None = None
        """Why it has stopped by itself."""
        self.value_of: Callable[[int], bytes] = self.event
        """The value of event i; a drill may mix in values that are no events."""
        self.published: dict[RecordPosition, float] = {}
        """When each record was acknowledged, in `time.monotonic` seconds."""
        self._topic = topic
        self._pause = 1.0 / rate
        self._images = images
        for i in range(IMAGES):
            Image.new("RGB", (48, 48), (i * 30, 255 - i * 30, 90)).save(images / f"{i}.png")
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "topic.metadata.refresh.interval.ms": 1000,
                "log_level": 0,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._publish, name="drill-publisher")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when all that was sent is acknowledged."""
        self._stopping.set()
        self._thread.join()

    def use_partitions(self, count: int) -> None:
        """Publishes to partitions 0 to `count` - 1 from now on. Returns when they are known."""
        while len(self._producer.list_topics(self._topic, timeout=10).topics[self._topic].partitions) < count:
            time.sleep(0.05)
        self._partitions = count

    def event(self, i: int) -> bytes:
        """A good event."""
        path = self._images / f"{i % IMAGES}.png"
        return self.event_of(i, path)

    def event_of(self, i: int, path: Path) -> bytes:
        return json.dumps(
            {
                "schema": "sluice.image-event/1",
                "id": f"event-{i}",
                "occurred_at": "2026-11-24T12:00:00Z",
                "image": {"kind": "file", "path": str(path)},
            }
        ).encode()

    def _publish(self) -> None:
        try:
            for i in itertools.count():
                if self._stopping.wait(self._pause):
                    break
                self._producer.produce(
                    self._topic, self.value_of(i), partition=i % self._partitions, on_delivery=self._delivered
                )
                self._producer.poll(0)
            self._producer.flush(60)
        except Exception as error:  # noqa: BLE001  # the drill waits for events, and says why none come
            self.failure = error

    def _delivered(self, error: KafkaError | None, record: Message) -> None:
        partition, offset = record.partition(), record.offset()
        if error is not None or partition is None or offset is None:
            raise RuntimeError(f"an event was not published: {error}")
        self.published[RecordPosition(partition, offset)] = time.monotonic()
