"""Checks what a Serve config names: model, policy, Kafka, Redis, S3 and the topic's partitions."""

from collections.abc import Iterator, Sequence

from schemas.explain import DocumentProblem
from worker.apps import desk, engine, intake
from worker.apps.checking.applications import Built
from worker.apps.worker_thread import count_partitions
from worker.intake.log import LogError
from worker.policy import PolicyError, parse_policy
from worker.policy.place import place_of
from worker.preflight import CheckStatus, check_servers, explain
from worker.scoring.manifest import ManifestError
from worker.scoring.model import load_model
from worker.settings import Settings


def problems_online(applications: Sequence[Built]) -> Iterator[DocumentProblem]:
    """Problems with the named resources. Each resource is checked once, even if several applications name it."""
    asked: set[tuple[str, str]] = set()

    def first(kind: str, place: object) -> bool:
        known = (kind, repr(place)) in asked
        asked.add((kind, repr(place)))
        return not known

    for built in applications:
        settings = built.settings
        if settings is None or built.notes:  # a settings file that is not on this machine would name other places
            continue
        if built.builder is not desk.build and first("model", (settings.model, settings.s3)):
            yield from _model(built, settings)
        if built.builder is not engine.build and first("policy", (settings.policy, settings.s3)):
            yield from _policy(built, settings)
        is_desk = built.builder is desk.build
        if (is_desk or built.builder is intake.build) and first("servers", (is_desk, settings.kafka, settings.redis)):
            yield from _servers(built, settings, is_desk)
        if built.builder is intake.build:
            yield from _partitions(built, settings)


def _model(built: Built, settings: Settings) -> Iterator[DocumentProblem]:
    try:
        load_model(settings.model, settings.s3)
    except ManifestError as error:
        yield DocumentProblem((*built.path, "args", "settings", "model"), str(error))


def _policy(built: Built, settings: Settings) -> Iterator[DocumentProblem]:
    place = place_of(settings, None)
    try:
        parse_policy(place.read().content, place.address)
    except PolicyError as error:
        path = (*built.path, "args", "settings", "policy")
        yield from (DocumentProblem(path, line) for line in str(error).splitlines())


def _servers(built: Built, settings: Settings, is_desk: bool) -> Iterator[DocumentProblem]:
    for finding in check_servers(settings, desk=is_desk):
        if finding.status in (CheckStatus.WRONG, CheckStatus.BLOCKED):
            yield DocumentProblem((*built.path, "args", "settings"), explain(finding))


def _partitions(built: Built, settings: Settings) -> Iterator[DocumentProblem]:
    """Replicas beyond the number of partitions would have nothing to read."""
    for path, entry in built.entries():
        scaling = entry.get("autoscaling_config")
        wanted = scaling.get("max_replicas") if isinstance(scaling, dict) else entry.get("num_replicas")
        if not isinstance(wanted, int):
            continue
        try:
            partitions = count_partitions(settings)
        except LogError:  # the server checks report it
            return
        if wanted > partitions:
            where = "autoscaling_config" if isinstance(scaling, dict) else "num_replicas"
            text = f"{wanted} replicas, but {settings.kafka.topics.images} has {partitions} partitions"
            yield DocumentProblem((*path, where), f"{text}; replicas beyond that have nothing to read")
