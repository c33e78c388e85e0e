"""Rules that a Serve config of Sluice's applications must follow."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from schemas.explain import DocumentProblem, suggestion
from worker.apps import desk, engine, gateway, intake
from worker.apps.checking.applications import Built
from worker.apps.serve_engine import ENGINE
from worker.apps.worker_thread import CLOSE_SECONDS
from worker.settings import Settings

LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
ENGINE_SETTINGS: Final = ("model", "engine", "s3", "telemetry")
ENGINE_STOP_SECONDS: Final = 10.0
"""Time for the calls in progress when an engine replica is stopped: a few batches."""
HEALTH_CHECK_SECONDS: Final = 5.0
"""A replica under full load answers a health check within this time. Serve replaces a replica that fails three checks
in a row.
"""


def misfits(applications: Sequence[Built], http_options: Mapping[str, Any]) -> Iterator[DocumentProblem]:
    """Finds values that are valid by themselves and wrong together."""
    for built in applications:
        rule = _RULES.get(built.builder)
        if rule is not None and built.settings is not None and built.deployments:
            yield from rule(built, built.settings)
            yield from _calls_an_engine(built, applications)
            yield from _has_time_for_answers(built, built.settings, http_options)
            yield from _has_time_for_health_checks(built)
            if built.builder is gateway.build:
                yield from _lets_callers_in(built, built.settings, http_options)


def notes(applications: Sequence[Built], *, online: bool) -> Iterator[str]:
    """Lists what was not checked: what needs the cluster and, unless `online`, the servers."""
    models = {built.name: _model(built) for built in applications if ENGINE in built.deployments}
    for built in applications:
        yield from (f"{built.name}: {note}" for note in built.notes)
        wanted, served = _model(built), models.get(getattr(built.arguments, "engine", ""))
        if wanted is not None and served is not None and wanted != served:
            yield (
                f"{built.name}: its model is {wanted}, its engine's {served}; unless these are the same model, "
                "it waits for the engine and then fails"
            )
    if not online:
        for what, names in _named(applications).items():
            yield f"not checked without --online: {what} {', '.join(names)}"


def _named(applications: Sequence[Built]) -> dict[str, list[str]]:
    """The resources that the applications use. Those in a settings file that is not on this machine are unknown."""
    named: dict[str, list[str]] = {}

    def add(what: str, name: str) -> None:
        if name not in named.setdefault(what, []):
            named[what].append(name)

    for built in applications:
        if built.settings is None or built.notes:
            continue
        add("model", str(built.settings.model))
        if built.settings.policy is not None:
            add("policy", str(built.settings.policy))
        if built.builder is intake.build:
            topic = built.settings.kafka.topics.images
            add(
                "Kafka",
                f"{built.settings.kafka.bootstrap_servers} (and whether {topic} has a partition for each replica)",
            )
        if built.builder is not engine.build:
            add("Redis and S3", "of the settings")
    return named


def _engine(built: Built, settings: Settings) -> Iterator[DocumentProblem]:  # noqa: ARG001
    yield from _has_no_route(built)
    yield from _may_take(built, ENGINE, ENGINE_STOP_SECONDS, "answering the calls under way")
    path, ongoing = built.option(ENGINE, "max_ongoing_requests")
    calls = getattr(built.arguments, "calls_at_once", 0)
    if isinstance(ongoing, int) and ongoing < calls:
        yield DocumentProblem(
            path,
            (
                f"{ongoing} is less than calls_at_once, so {calls - ongoing} of {calls} calls are never used; set "
                f"{calls}"
            ),
        )
    for path, entry in built.entries():
        given = entry.get("user_config")
        for name in given if isinstance(given, dict) else ():
            if name in Settings.model_fields and name not in ENGINE_SETTINGS:
                yield DocumentProblem(
                    (*path, "user_config", name),
                    f"the engine uses only {', '.join(ENGINE_SETTINGS)}; put this under the intake and the gateway",
                )


def _intake(built: Built, settings: Settings) -> Iterator[DocumentProblem]:
    yield from _has_no_route(built)
    needed = settings.intake.drain_seconds + CLOSE_SECONDS
    yield from _may_take(built, intake.INTAKE, needed, "intake.drain_seconds and what closing takes")
    for path, entry in built.entries():
        scaling = entry.get("autoscaling_config")
        if entry.get("num_replicas") == "auto" or (isinstance(scaling, dict) and not scaling.get("policy")):
            yield DocumentProblem(
                path,
                "scales on calls, and the intake gets none, so it would stay at the minimum; set policy in "
                "autoscaling_config (docs/ray-serve.md#scaling), or num_replicas",
            )


def _gateway(built: Built, settings: Settings) -> Iterator[DocumentProblem]:
    yield from _may_take(built, gateway.GATEWAY, settings.gateway.timeout_seconds, "gateway.timeout_seconds")
    path, ongoing = built.option(gateway.GATEWAY, "max_ongoing_requests")
    if isinstance(ongoing, int) and ongoing <= settings.gateway.max_requests:
        yield DocumentProblem(
            path,
            f"{ongoing} leaves no capacity for health checks besides the {settings.gateway.max_requests} requests of "
            "gateway.max_requests; increase it, or remove it",
        )


def _desk(built: Built, settings: Settings) -> Iterator[DocumentProblem]:  # noqa: ARG001
    if built.entry.get("route_prefix", "/") != "/":
        yield DocumentProblem((*built.path, "route_prefix"), "the desk's page needs the root path; set /")
    for name in ("num_replicas", "autoscaling_config"):
        path, value = built.option(desk.DESK, name)
        if value not in (None, 1):
            yield DocumentProblem(
                path, ("there can be only one desk replica, because local users are stored in a file; remove this")
            )


def _model(built: Built) -> str | None:
    return str(built.settings.model) if built.settings is not None else None


def _has_no_route(built: Built) -> Iterator[DocumentProblem]:
    if built.entry.get("route_prefix", "/") is not None:
        yield DocumentProblem((*built.path, "route_prefix"), "this application does not answer HTTP; set null")


def _calls_an_engine(built: Built, applications: Sequence[Built]) -> Iterator[DocumentProblem]:
    wanted = getattr(built.arguments, "engine", None)
    engines = [other.name for other in applications if ENGINE in other.deployments or not other.deployments]
    if isinstance(wanted, str) and wanted not in engines:
        text = f"this config has no application {wanted!r} with a deployment {ENGINE!r}{suggestion(wanted, engines)}"
        yield DocumentProblem((*built.path, "args", "engine"), text)


def _may_take(built: Built, deployment: str, seconds: float, what: str) -> Iterator[DocumentProblem]:
    path, timeout = built.option(deployment, "graceful_shutdown_timeout_s")
    if isinstance(timeout, int | float) and timeout < seconds:
        yield DocumentProblem(
            path,
            f"after {timeout:g} s Serve kills the replica, which may need {seconds:g} s to stop ({what}); "
            "increase it, or remove it",
        )


def _has_time_for_health_checks(built: Built) -> Iterator[DocumentProblem]:
    for path, entry in built.entries():
        limit = entry.get("health_check_timeout_s")
        if isinstance(limit, int | float) and limit < HEALTH_CHECK_SECONDS:
            yield DocumentProblem(
                (*path, "health_check_timeout_s"),
                f"{limit:g} s is less than a busy replica may need ({HEALTH_CHECK_SECONDS:g} s): Serve would "
                "replace replicas under load; increase it, or remove it",
            )


def _lets_callers_in(built: Built, settings: Settings, http_options: Mapping[str, Any]) -> Iterator[DocumentProblem]:
    elsewhere = bool(built.notes)  # a settings file that is not on this machine may have keys
    if http_options.get("host", "127.0.0.1") not in LOOPBACK and not settings.gateway.keys and not elsewhere:
        yield DocumentProblem(
            (*built.path, "args", "settings", "gateway", "keys"),
            "is empty, so only callers on the proxy's own node are answered; make a key with `sluice deploy key`",
        )


def _has_time_for_answers(
    built: Built, settings: Settings, http_options: Mapping[str, Any]
) -> Iterator[DocumentProblem]:
    limit = http_options.get("request_timeout_s")
    if not isinstance(limit, int | float):
        return
    path = ("http_options", "request_timeout_s")
    if built.builder is gateway.build and limit <= settings.gateway.timeout_seconds:
        yield DocumentProblem(path, f"{limit:g} s is not more than gateway.timeout_seconds; increase it, or remove it")
    if built.builder is desk.build:
        yield DocumentProblem(path, "it would end the desk's live event streams; remove it")


_RULES: Final[Mapping[object, Callable[[Built, Settings], Iterator[DocumentProblem]]]] = {
    engine.build: _engine,
    intake.build: _intake,
    gateway.build: _gateway,
    desk.build: _desk,
}
