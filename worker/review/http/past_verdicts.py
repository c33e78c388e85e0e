"""The newest verdicts, for replaying a policy over them."""

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas import Verdict
from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_reading import explained, open_reader, partitions_of
from worker.settings import KafkaSettings, Settings

MOST: Final = 10_000
"""Verdicts that are looked at: about a second of replaying."""
FRESH_SECONDS: Final = 20.0
"""A lead moves a slider many times; the verdicts are read once for all of them."""


class PastVerdicts:
    """The newest verdicts of the topic, each once. Safe to use from several threads."""

    def __init__(self, read: Callable[[], Iterator[bytes]], clock: Callable[[], float]) -> None:
        self._read = read
        self._clock = clock
        self._lock = threading.Lock()
        self._verdicts: list[Verdict] = []
        self._read_at: float | None = None

    def newest(self) -> list[Verdict]:
        """Raises LogError."""
        with self._lock:
            if self._read_at is None or self._clock() - self._read_at > FRESH_SECONDS:
                by_id = {verdict.verdict_id: verdict for verdict in _parsed(self._read())}
                self._verdicts = sorted(by_id.values(), key=lambda verdict: verdict.judged_at)[-MOST:]
                self._read_at = self._clock()
            return self._verdicts


def _parsed(values: Iterator[bytes]) -> Iterator[Verdict]:
    for value in values:
        try:
            yield Verdict.model_validate_json(value)
        except ValidationError:
            continue  # of another version of the contract; a replay is an estimate


def from_embedded(settings: Settings, data: Path) -> Callable[[], Iterator[bytes]]:
    """Reads the embedded log."""

    def read() -> Iterator[bytes]:
        with closing(open_embedded_topics(settings, data)) as topics:
            ends = topics.ends(settings.kafka.topics.verdicts)
            share = -(-MOST // len(ends))
            positions = {partition: max(0, end - share) for partition, end in ends.items()}
            while records := topics.read(positions):
                for record in records:
                    positions[record.partition] = record.offset + 1
                    if record.value:
                        yield record.value

    return read


def from_kafka(settings: Settings) -> Callable[[], Iterator[bytes]]:
    """Reads the topic outside every group."""

    def read() -> Iterator[bytes]:
        with explained(settings.kafka):
            consumer = open_reader(settings.kafka)
            try:
                yield from _newest(consumer, settings.kafka)
            finally:
                consumer.close(autocommit=False)

    return read


def _newest(consumer: Any, settings: KafkaSettings) -> Iterator[bytes]:
    partitions = partitions_of(consumer, settings.topics.verdicts, settings)
    consumer.assign(partitions)
    starts, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    share = -(-MOST // len(partitions))
    for partition in partitions:
        consumer.seek(partition, max(starts[partition], ends[partition] - share))
    while any(consumer.position(partition) < ends[partition] for partition in partitions):
        for record in itertools.chain.from_iterable(consumer.poll(timeout_ms=200).values()):
            if record.value:
                yield record.value
