"""Which client library reads and writes Kafka."""

from collections.abc import Sequence

from worker.intake.log import Log, LogRefused
from worker.settings import KafkaSettings, TelemetrySettings


def open_kafka_log(settings: KafkaSettings, telemetry: TelemetrySettings, *, topics: Sequence[str]) -> Log:
    """One member of the group that reads `topics`, by the client that `kafka.client` names.

    `telemetry` says how a process that the log starts writes its own logs. Raises LogError when Kafka cannot be used,
    LogRefused (a kind of it) when the client is not installed.
    """
    if settings.client == "kafka-python":
        from worker.intake.kafka_log import KafkaLog

        return KafkaLog(settings, telemetry, topics=topics)
    try:
        from worker.intake.librdkafka_log import LibrdkafkaLog
    except ModuleNotFoundError as error:
        if error.name != "confluent_kafka":
            raise
        raise LogRefused(
            "kafka.client is librdkafka, but it is not installed: pip install 'sluice[librdkafka]'"
        ) from error
    return LibrdkafkaLog(settings, topics=topics)
