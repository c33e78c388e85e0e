"""How large a record each topic takes."""

from collections.abc import Mapping, Sequence

import structlog
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import KafkaError

from worker.intake.kafka_probe import admin_client
from worker.intake.log import LogError, Output, OutputsTooLarge
from worker.settings import KafkaSettings

log = structlog.get_logger(__name__)

RECORD_OVERHEAD = 512
"""Bytes that a batch and a record have beside key, value and headers, at most."""


class TopicLimits:
    """The `max.message.bytes` of the topics that the worker writes to, as far as the broker shows them. They are asked
    for at the start, and again when an output seems too large. One thread at a time."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self._known: dict[str, int] = {}
        topics = settings.topics
        self._ask([topics.verdicts, topics.review, topics.dead])

    def smallest(self) -> int:
        """What every topic takes."""
        return min(self._known.values(), default=self._settings.max_message_bytes)

    def require(self, outputs: Sequence[Output]) -> None:
        """Raises OutputsTooLarge where an output is larger than its topic is known to take."""
        if not self._larger(outputs):
            return
        self._ask(sorted(self._known))  # somebody may have raised the limit
        if larger := self._larger(outputs):
            raise _too_large(outputs, larger)

    def refused(self, outputs: Sequence[Output], positions: Sequence[int]) -> OutputsTooLarge:
        """The error of a commit in which the broker refused outputs for their size; `positions` are theirs.

        Where the broker does not show its limits, they are half of what it refused.
        """
        self._ask(sorted({output.topic for output in outputs}))
        larger = self._larger(outputs) or {at: _size(outputs[at]) // 2 for at in positions}
        return _too_large(outputs, larger)

    def _larger(self, outputs: Sequence[Output]) -> dict[int, int]:
        most = self._settings.max_message_bytes
        limits = {topic: min(limit, most) for topic, limit in self._known.items()}
        return {
            at: limit for at, output in enumerate(outputs) if _size(output) > (limit := limits.get(output.topic, most))
        }

    def _ask(self, topics: Sequence[str]) -> None:
        try:
            with admin_client(self._settings) as admin:
                resources = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
                described: Mapping[str, Mapping[str, Mapping[str, str]]]
                described = admin.describe_configs(resources, config_filter="all")["topic"]
        except (KafkaError, LogError, OSError) as error:
            log.info("topic_limits_not_shown", error=str(error))
            return
        for topic, options in described.items():
            if "max.message.bytes" in options:
                self._known[topic] = int(options["max.message.bytes"]["value"])


def _too_large(outputs: Sequence[Output], limits: Mapping[int, int]) -> OutputsTooLarge:
    topics = ", ".join(sorted({outputs[at].topic for at in limits}))
    values = {at: max(0, limit - _size(outputs[at]) + len(outputs[at].value)) for at, limit in limits.items()}
    return OutputsTooLarge(f"{len(limits)} of {len(outputs)} outputs are larger than {topics} takes", values)


def _size(output: Output) -> int:
    headers = sum(len(name) + len(value) for name, value in output.headers)
    return len(output.value) + len(output.key or b"") + headers + RECORD_OVERHEAD
