"""The newest verdicts, for replaying a policy over them."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from schemas import Verdict
from worker.intake.embedded import open_embedded_topics
from worker.intake.kafka_reading import explained, open_reader, partitions_of
from worker.intake.log import LogError
from worker.review.waiting import WaitedTooLong, held
from worker.settings import KafkaSettings, Settings

MIN_ANSWER_MS: Final = 1000
"""kafka-python wants more than a fetch may wait."""
CLOSE_MS: Final = 1000
MOST: Final = 10_000
"""Verdicts that are looked at: about a second of replaying."""
FRESH_SECONDS: Final = 20.0
"""A lead moves a slider many times; the verdicts are read once for all of them."""
READ_SECONDS: Final = 10.0
"""Longest wait of one request, for another that reads already and for the log together."""

Read = Callable[[float], Iterator[bytes]]
"""Yields the verdicts of a topic. Raises LogError, also when it takes longer than the seconds given."""


class PastVerdicts:
    """The newest verdicts of the topic, each once. Thread-safe: requests at the same time share one read."""

    def __init__(self, read: Read, clock: Callable[[], float], read_seconds: float = READ_SECONDS) -> None:
        self._read = read
        self._clock = clock
        self._read_seconds = read_seconds
        self._lock = threading.Lock()
        self._verdicts: list[Verdict] = []
        self._read_at: float | None = None

    def newest(self) -> list[Verdict]:
        """Raises LogError, at the latest after `read_seconds`."""
        deadline = self._clock() + self._read_seconds
        try:
            with held(self._lock, self._read_seconds, "reading past verdicts"):
                if self._read_at is None or self._clock() - self._read_at > FRESH_SECONDS:
                    values = self._read(max(0.0, deadline - self._clock()))
                    by_id = {verdict.verdict_id: verdict for verdict in _parsed(values)}
                    self._verdicts = sorted(by_id.values(), key=lambda verdict: verdict.judged_at)[-MOST:]
                    self._read_at = self._clock()
                return self._verdicts
        except WaitedTooLong as error:
            raise LogError(str(error)) from None


def _parsed(values: Iterator[bytes]) -> Iterator[Verdict]:
    for value in values:
        try:
            yield Verdict.model_validate_json(value)
        except ValidationError:
            continue  # of another version of the contract; a replay is an estimate


def from_embedded(settings: Settings, data: Path) -> Read:
    """Reads the embedded log."""

    def read(_: float) -> Iterator[bytes]:
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


def from_kafka(settings: Settings) -> Read:
    """Reads the topic outside every group."""

    def read(seconds: float) -> Iterator[bytes]:
        deadline = time.monotonic() + seconds
        milliseconds = max(MIN_ANSWER_MS, int(seconds * 1000))
        with explained(settings.kafka):
            consumer = open_reader(settings.kafka, request_timeout_ms=milliseconds, bootstrap_timeout_ms=milliseconds)
            try:
                yield from _newest(consumer, settings.kafka, deadline)
            finally:
                consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    return read


def _newest(consumer: Any, settings: KafkaSettings, deadline: float) -> Iterator[bytes]:
    def remaining_ms() -> int:
        return max(1, int(1000 * (deadline - time.monotonic())))

    partitions = partitions_of(consumer, settings.topics.verdicts, settings)
    consumer.assign(partitions)
    starts = consumer.beginning_offsets(partitions, timeout_ms=remaining_ms())
    ends = consumer.end_offsets(partitions, timeout_ms=remaining_ms())
    share = -(-MOST // len(partitions))
    for partition in partitions:
        consumer.seek(partition, max(starts[partition], ends[partition] - share))
    behind = set(partitions)
    while behind:
        if time.monotonic() > deadline:
            raise LogError(
                f"Kafka at {settings.bootstrap_servers} did not deliver past verdicts in time; try again in a moment"
            )
        for record in itertools.chain.from_iterable(consumer.poll(timeout_ms=200).values()):
            if record.value:
                yield record.value
        behind = {p for p in behind if (consumer.position(p, timeout_ms=remaining_ms()) or 0) < ends[p]}
