"""The desk application: the review desk's page and API, served by Ray Serve.

`import_path: worker.apps.desk:build`; the deployment is `desk`. The page needs the root path, so its route prefix is
`/`. See docs/ray-serve.md.
"""

import sys
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final

import structlog
from ray import serve
from ray.serve import Application
from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from worker.apps.arguments import Arguments
from worker.apps.patience import once_kafka_answers
from worker.apps.ray_metrics import RayMetrics
from worker.cache.client import connect_server
from worker.review.http.server import DeskServerError
from worker.review.http.serving import check_web_settings, open_app
from worker.review.running import open_desk
from worker.settings import Settings, SettingsError
from worker.supervision import Supervisor
from worker.telemetry.logs import configure_logging

log = structlog.get_logger(__name__)

DESK: Final = "desk"
REQUESTS_AT_ONCE: Final = 1000
"""Each open page holds one request, for its live events."""
CLOSE_SECONDS: Final = 10.0
"""Maximum time of a live event stream. Pages connect again after it."""


FIRST_LINK: Final = "nobody can sign in yet; this link creates the first user and works once"


class DeskArguments(Arguments):
    """The desk uses the settings `web`, `review`, `kafka`, `redis`, `s3`, `policy`, `images`, `http` and `files`."""

    data: Path
    """A persistent folder, for the local users and, without `web.secret_key`, the signing key."""


class OneDeskOnly(Exception):
    """The deployment has more than one replica."""


@serve.ingress()
class DeskReplica:
    """The only replica of the desk. Local users are in a file, and results of policy replays are in memory. One process
    is enough for far more reviewers than a desk is likely to have.
    """

    def __init__(self, settings: Settings, data: Path) -> None:
        configure_logging(settings.telemetry)
        replicas = serve.get_replica_context().world_size
        if replicas > 1:
            raise OneDeskOnly(f"the desk has {replicas} replicas; set num_replicas to 1, and no autoscaling_config")
        self._resources = ExitStack()
        client = connect_server(settings.redis)
        self._resources.callback(client.close)
        supervisor = Supervisor()
        context = serve.get_replica_context()
        tags = {"application": context.app_name, "deployment": context.deployment, "replica": context.replica_tag}
        metrics = RayMetrics(lambda: supervisor.registry, tags)
        self._resources.callback(metrics.close)
        metrics.start()
        desk = once_kafka_answers(lambda: open_desk(settings, None, client, supervisor, data))
        self._resources.callback(desk.close)
        origin = settings.web.public_url or ""
        opened = self._resources.enter_context(
            closing(open_app(settings, data, desk, client, None, origin, supervisor=supervisor))
        )
        proxies = list(settings.web.trusted_proxies)
        web: Any = opened.app  # uvicorn and Starlette have different types for ASGI applications
        self._web: ASGIApp = ProxyHeadersMiddleware(web, proxies) if proxies else web  # type: ignore[assignment]
        log.info("desk_open", address=origin)
        if opened.first_link is not None:
            log.warning(
                "desk_has_no_users", note=("the link that creates the first one, and works once, is on the next line")
            )
            # Printed, not logged: the log would remove the secret from the link.
            print(f"{FIRST_LINK}: {opened.first_link}", file=sys.stderr, flush=True)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        return self._web

    def __del__(self) -> None:
        """Serve calls this when it stops the replica."""
        if hasattr(self, "_resources"):
            self._resources.close()


def build(arguments: DeskArguments) -> Application:
    """The application. Raises SettingsError."""
    settings = arguments.load()
    if settings.web.public_url is None:
        raise SettingsError("web.public_url: is missing; behind Ray Serve the desk cannot know its public address")
    try:
        check_web_settings(settings.web, settings.web.public_url)
    except DeskServerError as error:
        raise SettingsError(str(error)) from None
    deployment: Any = serve.deployment(
        DeskReplica,
        name=DESK,
        num_replicas=1,
        max_ongoing_requests=REQUESTS_AT_ONCE,
        graceful_shutdown_timeout_s=CLOSE_SECONDS,
        graceful_shutdown_wait_loop_s=0.5,
    )
    application: Application = deployment.bind(settings, arguments.data.absolute())
    return application
