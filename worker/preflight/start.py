"""The checks before the worker starts."""

from collections.abc import Iterator

import structlog

from worker.intake.log import LogError, LogRefused
from worker.preflight.finding import CheckStatus, Finding, blocking, explain
from worker.preflight.kafka import check_kafka
from worker.preflight.schemas import check_registry
from worker.preflight.server_checks import check_redis, check_s3
from worker.settings import Settings

log = structlog.get_logger(__name__)


class ServersNotReady(LogRefused):
    """A server does not provide what the worker needs. Each line says what is wrong and how to fix it."""


def check_servers(settings: Settings, *, desk: bool = False) -> Iterator[Finding]:
    """Runs all checks; with `desk`, also those of the review desk. Never raises."""
    yield from check_kafka(settings.kafka, desk=desk)
    if settings.kafka.schema_registry is not None:
        yield from check_registry(settings.kafka.schema_registry)
    yield from check_redis(settings.redis)
    yield from check_s3(settings)


def require_servers(settings: Settings) -> None:
    """Returns if the worker can run. Problems that do not prevent that are logged. Raises ServersNotReady if a person
    has to fix something, LogError if waiting may help.
    """
    findings = list(check_servers(settings))
    for finding in findings:
        if finding.status is CheckStatus.WRONG:
            log.warning("server_not_as_needed", check=finding.check, detail=finding.detail, advice=finding.advice)
    stopping = blocking(findings)
    if not stopping:
        return
    message = "\n".join(map(explain, stopping))
    if any(finding.lasting for finding in stopping):
        raise ServersNotReady(message)
    raise LogError(message)
