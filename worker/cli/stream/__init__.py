"""The stream as commands see it: events go in, records come out, whatever keeps them."""

from collections.abc import Iterator
from typing import Protocol

from worker.cli.options import Place
from worker.intake.log import Record


class Stream(Protocol):
    """Publishes to the images topic and reads any topic, outside every consumer group."""

    def publish(self, key: bytes, value: bytes) -> None:
        """Takes an event. It is safe only after `flush`. Raises LogError."""

    def flush(self) -> None:
        """Returns when everything published is stored. Raises LogError when something is not."""

    def read(self, topic: str, *, from_beginning: bool, follow: bool) -> Iterator[Record]:
        """The topic's committed records: from its beginning or from now on, up to its present end or for ever.

        Raises LogError.
        """

    def close(self) -> None: ...


def open_stream(place: Place) -> Stream:
    """Kafka, or the embedded log. Raises LogError."""
    if place.data is not None:
        from worker.cli.stream.embedded import EmbeddedStream

        return EmbeddedStream(place.settings, place.data)
    from worker.cli.stream.kafka import KafkaStream

    return KafkaStream(place.settings.kafka)
