"""Checks of what the worker needs of Kafka, Redis and S3, before it starts and while it runs."""

from worker.preflight.decoders import check_decoders
from worker.preflight.finding import CheckStatus, Finding, blocking, explain
from worker.preflight.kafka_watch import KafkaWatch
from worker.preflight.start import ServersNotReady, check_servers, require_servers

__all__ = [
    "CheckStatus",
    "Finding",
    "KafkaWatch",
    "ServersNotReady",
    "blocking",
    "check_decoders",
    "check_servers",
    "explain",
    "require_servers",
]
