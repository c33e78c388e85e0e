"""Checks of what the worker needs of Kafka, Redis and S3, before it starts and while it runs."""

from worker.preflight.decoders import check_decoders
from worker.preflight.finding import CheckStatus, Finding, blocking, explain
from worker.preflight.start import ServersNotReady, check_servers, require_servers
from worker.preflight.watch import KafkaWatch

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
